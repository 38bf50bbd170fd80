"""Every key of `[gate]` with a value that nothing can meet: exit 1, and the gate is named.

And a weight damaged in one layer: the gate's mend, `llmdeploy diff`, names that layer.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.config import Gate

#: What no release reaches; a drop of score needs labels, and is tried without them.
IMPOSSIBLE = {
    "min-cosine": 2,
    "max-relative-error": 0,
    "max-score-drop": 0,
    "min-int8-share": 1.5,
    "min-speedup": 1e6,
    "max-latency-ms": 1e-6,
    "max-size-mb": 1e-6,
    "max-memory-mb": 1e-3,
    "max-slowdown": 0.05,
}
LOOSE = "min-cosine = 0.5\nmin-int8-share = 0.1\nmax-size-mb = 100\n"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, some_texts: Path) -> Path:
    """A project whose float and INT8 engines are built, compared and timed."""
    folder = tmp_path_factory.mktemp("gates")
    (folder / "base.toml").write_text(
        f'[model]\ncheckpoint = "{tiny_bert}"\n'
        f'[calibration]\nsamples = "{some_texts}"\nmax-length = 32\n'
        f'[build]\nprecision = "int8"\n'
    )
    assert verify(folder, LOOSE) == 0
    return folder


def verify(folder: Path, gates: str, more: str = "") -> int:
    config = folder / "llmdeploy.toml"
    config.write_text((folder / "base.toml").read_text() + f"{more}[gate]\n{gates}")
    return cli.call(["verify", "-q", "-c", str(config), "-w", str(folder / "artifacts")])


def standing(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "artifacts" / "report.json").read_text())
    return {gate["name"]: gate for gate in report["gates"]}


def test_every_limit_is_tried_here() -> None:
    keys = {name.replace("_", "-") for name in Gate.model_fields} - {
        "allow-unexecuted",
        "last-release",
    }
    assert set(IMPOSSIBLE) == keys


ALONE = [key for key in IMPOSSIBLE if key not in ("max-score-drop", "max-slowdown")]


@pytest.mark.parametrize("key", ALONE)
def test_a_limit_that_nothing_meets_is_exit_1_by_name(released: Path, key: str) -> None:
    assert verify(released, f"{key} = {IMPOSSIBLE[key]}\n") == 1
    gates = standing(released)
    assert gates[key]["status"] == "fail"
    assert gates[key]["limit"] == IMPOSSIBLE[key]
    assert gates[key]["reason"]
    assert key in (released / "artifacts" / "junit.xml").read_text()


def test_a_gate_that_was_not_executed_is_exit_1_until_it_is_allowed_by_name(released: Path) -> None:
    asked = "max-score-drop = 0\n"
    assert verify(released, asked) == 1
    assert standing(released)["max-score-drop"]["status"] == "not-executed"
    assert verify(released, f'{asked}allow-unexecuted = ["min-speedup"]\n') == 1
    assert verify(released, f'{asked}allow-unexecuted = ["max-score-drop"]\n') == 0


def last_release(folder: Path, times: float) -> str:
    """A report of a release whose calls took `times` as long; gives the gate's lines."""
    assert verify(folder, LOOSE) == 0
    report = json.loads((folder / "artifacts" / "report.json").read_text())
    for line in report["latency"]:
        line |= {key: times * line[key] for key in ("low_ms", "median_ms", "high_ms")}
    (folder / "last.json").write_text(json.dumps(report))
    return f'last-release = "last.json"\nmax-slowdown = {IMPOSSIBLE["max-slowdown"]}\n'


def test_slower_than_the_last_release_is_exit_1(released: Path) -> None:
    assert verify(released, last_release(released, 1 / 100)) == 1
    gate = standing(released)["max-slowdown"]
    assert (gate["status"], gate["limit"]) == ("fail", 0.05)
    assert gate["value"] > 10
    assert gate["mend"].startswith("llmdeploy diff last.json ")
    assert verify(released, last_release(released, 1)) == 0
    assert standing(released)["max-slowdown"]["value"] == 0


def test_another_machine_or_no_release_is_not_executed_and_a_broken_one_is_said(
    released: Path,
) -> None:
    limits = last_release(released, 1)
    report = json.loads((released / "last.json").read_text())
    report["environment"]["cpu"] = "another"
    (released / "last.json").write_text(json.dumps(report))
    assert verify(released, limits) == 1
    assert "on another machine: another" in standing(released)["max-slowdown"]["reason"]
    assert verify(released, "max-slowdown = 0.05\n") == 1
    assert standing(released)["max-slowdown"]["reason"] == "no last-release is named"
    assert verify(released, 'last-release = "none.json"\n') == 2


@pytest.mark.parametrize("name", ["artifacts", "artifacts/report.json", "link"])
def test_what_a_run_writes_over_is_no_last_release(
    released: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (released / "link").unlink(missing_ok=True)
    (released / "link").symlink_to(released / "artifacts")
    assert verify(released, LOOSE) == 0
    before = (released / "artifacts" / "report.json").read_bytes()
    assert verify(released, f'last-release = "{name}"\nmax-slowdown = 0.05\n') == 2
    assert "the one that this run writes" in capsys.readouterr().err
    assert (released / "artifacts" / "report.json").read_bytes() == before


def test_int8_that_was_built_as_float_is_exit_1(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        node.name
        for node in ir.load(released / "artifacts/optimize/model.onnx").graph
        if node.op_type in ("MatMul", "Gemm")
        and node.inputs[1] is not None
        and node.inputs[1].is_initializer()
    ]
    shutil.copytree(released / "artifacts", tmp_path / "artifacts")
    base = (released / "base.toml").read_text()
    kept = base.replace("max-length = 32\n", f"max-length = 32\nkeep = {json.dumps(nodes)}\n")
    (tmp_path / "llmdeploy.toml").write_text(kept)
    where = ["-c", str(tmp_path / "llmdeploy.toml"), "-w", str(tmp_path / "artifacts")]
    assert cli.call(["build", "-q", *where]) == 1
    said = capsys.readouterr().err
    assert "gate precision.engine/onnxruntime fail: int8 was asked for" in said
    assert "no weight of its graph is int8" in said


def test_an_engine_that_widened_its_weights_is_exit_1(
    released: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llmdeploy.deploy import audit

    real = audit.weights_of
    monkeypatch.setattr(audit, "weights_of", lambda model: 4 * real(model))
    shutil.copytree(released / "artifacts", tmp_path / "artifacts")
    (tmp_path / "llmdeploy.toml").write_text((released / "base.toml").read_text())
    shutil.rmtree(tmp_path / "artifacts" / "engine")
    where = ["-c", str(tmp_path / "llmdeploy.toml"), "-w", str(tmp_path / "artifacts")]
    assert cli.call(["build", "-q", *where]) == 1
    assert "bytes of weights" in capsys.readouterr().err


def tensors(folder: Path, words: str) -> tuple[str, str, str]:
    """A MatMul's node, tensor and weight, of the float engine, by words in the weight's name."""
    for node in ir.load(folder / "model.onnx").graph:
        for value in node.inputs:
            if value is not None and node.op_type == "MatMul" and words in (value.name or ""):
                return node.name or "", node.outputs[0].name or "", value.name or ""
    raise AssertionError(words)


def damage(folder: Path, weight: str) -> None:
    """Write the graph of a stage again with one weight's values doubled."""
    model = ir.load(folder / "model.onnx")
    value = model.graph.initializers[weight]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * 2, name=weight)
    ir.save(model, folder / "damaged.onnx")
    (folder / "damaged.onnx").replace(folder / "model.onnx")


@pytest.mark.parametrize(
    "words",
    ["layer.0.attention.self.value", "layer.0.output.dense", "layer.1.intermediate.dense"],
)
@pytest.mark.parametrize("stage", ["optimize", "float/onnxruntime"])
def test_a_weight_damaged_in_one_layer_is_located(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, words: str
) -> None:
    workspace = tmp_path / "artifacts"
    shutil.copytree(released / "artifacts", workspace)
    node, tensor, weight = tensors(workspace / stage, words)
    shutil.copytree(workspace / stage, workspace / "damaged")
    damage(workspace / "damaged", weight)
    capsys.readouterr()
    assert cli.call(["diff", stage, "damaged", "-w", str(workspace), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    found = {(each["part"], each["name"]): each["after"] for each in changes}
    assert found["first to part", "tensor"] == tensor
    assert node in found["first to part", "node"]
    assert ("weights", weight) in found
    assert len([part for part, _ in found if part == "weights"]) == 1
