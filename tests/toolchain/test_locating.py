"""A failure injected in one layer, anywhere in the chain from torch on, is located by the gate.

The weight of one MatMul is doubled: by a pass, by a backend's lowering, or in the export itself.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir
import pytest
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.passes import Contract, Pass
from llmdeploy.toolchain import cli, registry
from llmdeploy.toolchain.exporter import apart
from pydantic.dataclasses import dataclass

LAYER = "layer.1.intermediate.dense"


def multiplied(model: ir.Model) -> ir.Node:
    """The node that multiplies by the layer's weight, however that is spelled."""
    for node in model.graph:
        if node.op_type in ("MatMul", "Gemm") and f"{LAYER}.weight" in str(node.inputs[1].name):
            return node
    return next(node for node in model.graph if node.op_type == "MatMul" and LAYER in scopes(node))


def scopes(node: ir.Node) -> str:
    return node.metadata_props.get("pkg.torch.onnx.name_scopes", "")


def double(model: ir.Model) -> None:
    """Double what the layer's MatMul gives."""
    node = multiplied(model)
    two = ir.Value(name="two", const_value=ir.tensor([2.0], name="two"))
    model.graph.initializers["two"] = two
    scaled = ir.node("Mul", [node.inputs[0], two])
    model.graph.insert_before(node, scaled)
    node.replace_input_with(0, scaled.outputs[0])


@dataclass(frozen=True)
class LossyDoubling(Pass):
    """A wrong pass that promises so little that no contract catches it."""

    contract: ClassVar[Contract] = Contract("lossy", {"float32": 1e9})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        double(model)
        return ir.passes.PassResult(model, True)


def project(folder: Path, checkpoint: Path, passes: tuple[str, ...] = ("clean", "fold")) -> None:
    tables = "".join(f'[[passes]]\nuse = "{name}"\n' for name in passes)
    (folder / "llmdeploy.toml").write_text(f'[model]\ncheckpoint = "{checkpoint}"\n{tables}')


def build(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    where = ["-c", str(folder / "llmdeploy.toml"), "-w", str(folder / "artifacts")]
    assert cli.call(["build", "--json", *where]) == 1
    return {gate["name"]: gate for gate in json.loads(capsys.readouterr().out)["gates"]}


def test_a_pass_that_is_wrong_is_named_with_its_node(
    tmp_path: Path,
    tiny_bert: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = registry.find
    wrong = {"lossy-doubling": LossyDoubling}
    monkeypatch.setattr(registry, "find", lambda kind, name: wrong.get(name) or find(kind, name))
    project(tmp_path, tiny_bert, ("clean", "lossy-doubling", "fold"))
    gates = build(tmp_path, capsys)
    assert gates["parity.export"]["status"] == "pass"
    assert gates["parity.optimize"]["status"] == "fail"
    reason = gates["parity.optimize"]["reason"]
    assert "by pass LossyDoubling" in reason or "by pass lossy-doubling" in reason
    graph = ir.load(tmp_path / "artifacts" / "export" / "model.onnx")
    wanted = multiplied(graph)
    assert wanted.outputs[0].name in reason
    assert wanted.name in reason
    assert gates["parity.optimize"]["mend"] == "llmdeploy diff export optimize"


def test_a_lowering_that_is_wrong_is_named(
    tmp_path: Path,
    tiny_bert: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lowering = OnnxRuntime.lowering
    monkeypatch.setattr(
        OnnxRuntime, "lowering", lambda self, kind: (*lowering(self, kind), LossyDoubling())
    )
    project(tmp_path, tiny_bert)
    gates = build(tmp_path, capsys)
    assert gates["parity.optimize"]["status"] == "pass"
    assert "oubling" in gates["parity.engine/onnxruntime"]["reason"]


def test_an_export_that_is_wrong_is_located_by_torch(
    tmp_path: Path,
    tiny_bert: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = apart.export

    def damaged(checkpoint: str, folder: Path, **options: Any) -> dict[str, Any]:
        results = real(checkpoint, folder, **options)
        model = ir.load(folder / "model.onnx")
        double(model)
        ir.save(model, folder / "damaged.onnx")
        (folder / "damaged.onnx").replace(folder / "model.onnx")
        return results

    monkeypatch.setattr(apart, "export", damaged)
    project(tmp_path, tiny_bert)
    gates = build(tmp_path, capsys)
    assert gates["parity.export"]["status"] == "fail"
    assert f"{LAYER} gives another" in gates["parity.export"]["reason"]
    assert gates["parity.optimize"]["status"] == "pass"
