"""A backend's lowering is held to its promises before anything is built of it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.deploy.backend import CLOSE, Takes
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.toolchain import cli


class Louder(ir.passes.InPlacePass):
    """Every other channel of the first LayerNormalization is off by a thousandth.

    All of them would not be: the next norm takes a factor of the whole out again.
    """

    contract = CLOSE

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
        scale = norm.inputs[1]
        assert scale is not None
        assert scale.const_value is not None
        array = scale.const_value.numpy().copy()
        array[::2] *= np.float32(1.001)
        louder = ir.tensor(array, name="louder")
        value = ir.Value(name="louder", type=scale.type, shape=scale.shape, const_value=louder)
        model.graph.register_initializer(value)
        norm.replace_input_with(1, value)
        return ir.passes.PassResult(model, True)


class Stumbling(ir.passes.InPlacePass):
    """Ends when it has changed half of the graph."""

    contract = CLOSE

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        half = ir.Value(name="half", const_value=ir.tensor([0.5], name="half"))
        model.graph.register_initializer(half)
        next(iter(model.graph)).replace_input_with(0, half)
        raise ValueError("half of it")


@pytest.fixture
def build(tmp_path: Path, tiny_bert: Path) -> Callable[[], int]:
    text = f'[model]\ncheckpoint = "{tiny_bert}"\n'
    (tmp_path / "llmdeploy.toml").write_text(text)
    where = ["-c", str(tmp_path / "llmdeploy.toml"), "-w", str(tmp_path / "artifacts")]
    return lambda: cli.call(["build", "-q", *where])


def test_each_pass_of_it_is_proved(tmp_path: Path, build: Callable[[], int]) -> None:
    assert build() == 0
    record = json.loads((tmp_path / "artifacts/engine/onnxruntime/stage.json").read_text())
    rows, attention = [each for each in record["results"]["steps"] if each["modified"]]
    assert (rows["name"], attention["name"]) == ("slice-rows", "fuse-attention")
    assert rows["proved"] >= 1
    assert rows["local_error"] == 0
    assert attention["proved"] >= 2
    assert attention["local_error"] <= CLOSE.tolerance["float32"]


def test_one_that_is_a_little_off_and_one_that_fails_are_left_out_and_said(
    tmp_path: Path, build: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lowering = OnnxRuntime.lowering
    monkeypatch.setattr(
        OnnxRuntime, "lowering", lambda self, kind: (*lowering(self, kind), Louder(), Stumbling())
    )
    assert build() == 0
    record = json.loads((tmp_path / "artifacts/engine/onnxruntime/stage.json").read_text())
    louder, stumbling = record["results"]["facts"]["left_out"]
    assert louder.startswith("louder: error ")
    assert "LayerNorm" in louder or "layer_norm" in louder
    assert stumbling == "stumbling: ValueError: half of it"
    graph = ir.load(tmp_path / "artifacts/engine/onnxruntime/model.onnx").graph
    assert not {"louder", "half"} & set(graph.initializers)


def test_an_opset_that_the_target_does_not_take_is_refused(
    build: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(OnnxRuntime, "takes", Takes(opsets=(7, 10)))
    assert build() == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "is outside 7 to 10, which onnxruntime takes" in line
