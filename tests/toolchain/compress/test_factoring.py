"""Low rank fitted to a model: within its budget, better than the weights alone can tell."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.passes import save
from llmdeploy.passes.low_rank import LowRank
from llmdeploy.toolchain.compress.factoring import factor
from llmdeploy.toolchain.compress.stage import carry_out, loss_of
from llmdeploy.toolchain.compress.subject import Subject
from llmdeploy.toolchain.config import PassTable

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[b,s,32] x) => (float[b,s,32] y)
{ u = MatMul(x, up)
  h = Relu(u)
  d = MatMul(h, down)
  e = Add(d, bias)
  y = MatMul(e, last) }
"""
SHAPES = {"up": (32, 64), "down": (64, 32), "bias": (32,), "last": (32, 32)}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Three weights whose inputs hang together, and samples of them."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("thin")
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in SHAPES.items():
        array = random.normal(size=shape).astype("f4") / shape[0] ** 0.5
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    save(ir.from_proto(proto), folder)
    mix = random.normal(size=(32, 32)) * np.geomspace(1, 0.02, 32)

    def feeds(count: int) -> list[dict[str, np.ndarray]]:
        return [{"x": (random.normal(size=(4, 25, 32)) @ mix).astype("f4")} for _ in range(count)]

    return Subject(folder / "model.onnx", feeds(16), feeds(4))


def loss(subject: Subject, method: Literal["whitened", "qr", "svd"], folder: Path) -> float:
    model, told = factor(subject, LowRank(ratio=0.4, method=method, multiple=1))
    assert told["parameters_removed"] >= 0.4
    save(model, folder)
    return loss_of(subject, folder / "model.onnx")


def test_the_inputs_decide(subject: Subject, tmp_path: Path) -> None:
    whitened = loss(subject, "whitened", tmp_path / "whitened")
    assert whitened < 0.5 * loss(subject, "svd", tmp_path / "svd")
    assert loss(subject, "qr", tmp_path / "qr") < 3 * whitened


def test_it_runs_in_the_stage(subject: Subject, tmp_path: Path) -> None:
    table = PassTable.model_validate({"use": "low-rank", "ratio": 0.2, "multiple": 1})
    results = carry_out(subject, [table], OnnxRuntime(), tmp_path)
    (step,) = results["steps"]
    assert step["applications"]["weights factored"] == len(results["factored"]) > 0
    assert step["bytes_after"] < step["bytes_before"]


def test_without_samples_it_is_refused(subject: Subject) -> None:
    with pytest.raises(ConfigError, match="low-rank needs samples"):
        factor(Subject(subject.model, (), ()), LowRank())
