"""A graph in blocks gives what the whole gives."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from llmdeploy.calibration import blocks, forward, forward_blocks
from llmdeploy.calibration.blocks import split

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[rows,16] x, bool flag) => (float[rows,16] out)
{
  a = MatMul(x, w)
  b = Relu(a)
  c = Add(b, x)
  d = If (flag) <
    then_branch = yes () => (float[rows,16] y) { y = MatMul(c, v) },
    else_branch = no () => (float[rows,16] n) { n = Neg(b) }
  >
  e = MatMul(d, u)
  f = Add(e, c)
  unused = Exp(f)
  out = MatMul(f, w)
}
"""
KIB = 16 * 16 * 4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto, random = onnx.parser.parse_model(TEXT), np.random.default_rng(0)
    for name in "wvu":
        array = random.normal(size=(16, 16)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [
        {"x": random.normal(size=(3 + i, 16)).astype(np.float32), "flag": np.array(i % 2 == 0)}
        for i in range(count)
    ]


@pytest.mark.parametrize(("size", "count"), [(KIB, 4), (2 * KIB, 2), (10 * KIB, 1)])
def test_blocks_give_what_the_whole_gives(model: Path, tmp_path: Path, size: int, count: int):
    names, given = ["x", "a", "c", "f", "out"], feeds(4)
    (tmp_path / "aside").mkdir()
    found: dict[int, dict[str, np.ndarray]] = {index: {} for index in range(4)}
    parts = 0
    for _, arrays in forward_blocks(model, names, given, tmp_path / "aside", size=size):
        parts += 1
        for index, each in enumerate(arrays):
            found[index] |= each
    assert parts == count
    for index, whole in enumerate(forward(model, names, given)):
        assert set(found[index]) == set(whole) == set(names)
        for name in names:
            np.testing.assert_allclose(found[index][name], whole[name], rtol=1e-5, atol=1e-6)
    assert not list((tmp_path / "aside").iterdir()), "nothing is left between the blocks"


def test_cuts_part_no_pair_and_lie_where_least_is_kept(model: Path):
    proto = onnx.load(model)
    plain = split(proto, ["out"], size=3 * KIB)
    assert [block.gives for block in plain] == [("f",), ()]
    bound = split(proto, ["out"], together=[("f", "out")], size=3 * KIB)
    assert [block.gives for block in bound] == [("c", "e"), ()]


@pytest.mark.parametrize("size", [KIB // 2, KIB, KIB * 8 // 7, 3 * KIB])
def test_pairs_stay_whole_however_little_fits(model: Path, size: int):
    """One weight fills a block, as of 8 billion, or is more than one."""
    pairs = [("b", "c"), ("d", "f")]
    found = split(onnx.load(model), ["b", "c", "d", "f", "out"], together=pairs, size=size)
    assert len(found) > 1
    for one, two in pairs:
        assert any({one, two} <= set(block.outputs) for block in found)


def test_what_is_watched_bounds_a_block_too(model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "CHANNELS", 32)
    wanted = ["a", "b", "c", "e", "f", "out"]
    found = split(onnx.load(model), wanted, widths=dict.fromkeys(wanted, 16))
    assert [name for block in found for name in block.outputs] == wanted
    assert max(len(block.outputs) for block in found) == 2


def test_what_no_wanted_tensor_needs_is_not_run(model: Path):
    (block,) = split(onnx.load(model), ["c"])
    assert len(block.nodes) == 3
