from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import ParityError
from llmdeploy.deploy.bisect import diverge, relative_error

from .graphs import normal, parse

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
WEIGHTS = {f"w{i}": normal(8, 8, seed=i) / 3 for i in range(4)}
FEED = {"x": normal(5, 8, seed=9)}


def chain(folder: Path, weights: dict[str, np.ndarray], scaled: str = "") -> Path:
    """Four residual layers; `scaled` doubles a tensor under its own name, and halves it again."""
    layers = []
    for i in range(4):
        into, out = ("x" if i == 0 else f"r{i - 1}"), f"r{i}"
        layers.append(
            f"m{i} = MatMul({into}, w{i})\n t{i} = Tanh(m{i})\n {out} = Add({into}, t{i})"
        )
    if scaled:
        layers[1] = (
            "d1 = Add(r0, r0)\n m1 = MatMul(d1, w1)\n h1 = Mul(m1, half)\n t1 = Tanh(h1)\n r1 = Add(r0, t1)"
        )
    inputs = ", ".join(f"float[8,8] w{i}" for i in range(4))
    text = f"{HEAD}g (float[N,8] x, {inputs}) => (float[N,8] r3) <float half = {{0.5}}> {{ {' '.join(layers)} }}"
    folder.mkdir()
    model = ir.passes.common.ShapeInferencePass()(parse(text, weights)).model
    ir.save(model, folder / "model.onnx", external_data="model.onnx.data")
    return folder / "model.onnx"


def test_a_layer_that_was_spoiled_is_located(tmp_path: Path) -> None:
    sound = chain(tmp_path / "a", WEIGHTS)
    spoiled = chain(tmp_path / "b", WEIGHTS | {"w2": WEIGHTS["w2"] + 0.01})
    found = diverge(sound, spoiled, FEED, 1e-5)
    assert found is not None
    assert (found.tensor, found.agreed) == ("m2", ("r1",))
    assert found.node.startswith("MatMul")
    assert found.region == (found.node,)
    assert found.differing == 6
    assert not [path for path in (tmp_path / "b").iterdir() if path.suffix == ".tmp"]
    assert len(list((tmp_path / "b").iterdir())) == 2


def test_what_is_only_rescaled_and_heals_is_no_divergence(tmp_path: Path) -> None:
    plain, scaled = chain(tmp_path / "a", WEIGHTS), chain(tmp_path / "b", WEIGHTS, scaled="m1")
    assert diverge(plain, scaled, FEED, 1e-5) is None
    both = chain(tmp_path / "c", WEIGHTS | {"w3": -WEIGHTS["w3"]}, scaled="m1")
    found = diverge(plain, both, FEED, 1e-5)
    assert found is not None
    assert found.tensor == "m3"


def test_graphs_that_share_nothing_cannot_be_held_against_each_other(tmp_path: Path) -> None:
    other = parse(HEAD + "g (float[N,8] x) => (float[N,8] q) { q = Relu(x) }")
    ir.save(other, tmp_path / "other.onnx")
    with pytest.raises(ParityError, match="share no tensor"):
        diverge(chain(tmp_path / "a", WEIGHTS), tmp_path / "other.onnx", FEED, 1e-5)


def test_relative_error() -> None:
    one = np.array([1.0, -4.0, np.inf])
    assert relative_error(one, np.array([1.0, -3.0, np.inf])) == 0.25
    assert relative_error(one, np.array([1.0, -4.0, 7.0])) == float("inf")
    assert relative_error(one, one[:2]) == float("inf")
    assert relative_error(np.empty(0), np.empty(0)) == 0.0
