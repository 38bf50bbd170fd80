"""Gates of what was measured, without measuring: records of stages in, gates out."""

import dataclasses
from pathlib import Path

import pytest
from llmdeploy.deploy.gate import Gate
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain import judging
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.verbs import left_out
from llmdeploy.toolchain.workspace import Stage, Workspace


def parity(name: str, against: str, cosine: float) -> Stage:
    outputs = [{"name": "logits", "cosine_mean": cosine, "max_rel": 0.0}]
    tolerance = {"max_relative_error": None, "min_cosine": 0.5}
    results = {"name": name, "against": against, "tolerance": tolerance, "outputs": outputs}
    results |= {"ok": True, "reason": ""}
    return Stage(f"parity/{name}", "", {}, {}, {}, 0.0, 0, results, {}, {})


ENGINE = parity("engine/onnxruntime", "optimize", 0.9)


def min_cosine(folder: Path, precision: str, *held: Stage) -> Gate:
    tables = {"build": {"precision": precision}, "gate": {"min-cosine": 0.99}}
    stages = {each.name: each for each in held}
    stages |= {
        each.results["name"]: each for each in held if each is not ENGINE
    }  # as they are made
    run = Run(Config.model_validate(tables), Workspace(folder), stages=stages)
    (gate,) = (each for each in judging.gates(run, {}) if each.name == "min-cosine")
    return gate


@pytest.mark.parametrize(
    ("precision", "held", "value", "mend"),
    [
        ("fp32", [ENGINE], 0.9, "llmdeploy diff optimize engine/onnxruntime"),
        ("fp16", [ENGINE, parity("quantize", "optimize", 0.8)], 0.8, "diff optimize quantize"),
        ("int8", [ENGINE, parity("quantize", "optimize", 0.8)], 0.8, "llmdeploy calibrate"),
        ("fp32", [ENGINE, parity("compress", "optimize", 0.7)], 0.7, "diff optimize compress"),
    ],
)
def test_the_least_cosine_is_measured_at_every_precision(
    precision: str, held: list[Stage], value: float, mend: str, tmp_path: Path
) -> None:
    gate = min_cosine(tmp_path, precision, *held)
    assert (gate.status, gate.value) == ("fail", value)
    assert mend in gate.mend


def test_a_float_engine_holds_the_gate_that_init_writes(tmp_path: Path) -> None:
    good = dataclasses.replace(ENGINE, results=parity("", "optimize", 1.0).results)
    gate = min_cosine(tmp_path, "fp32", good)
    assert (gate.status, gate.value) == ("pass", 1.0)


def test_an_engine_tells_nothing_of_a_graph_that_was_rounded_before_it(tmp_path: Path) -> None:
    tables = {"build": {"precision": "bf16"}, "gate": {"min-cosine": 0.99}}
    stages = {each: ENGINE for each in ("quantize", ENGINE.name)}
    run = Run(Config.model_validate(tables), Workspace(tmp_path), stages=stages)
    (gate,) = (each for each in judging.gates(run, {}) if each.name == "min-cosine")
    assert gate.status == "not-executed"


def test_where_nothing_was_executed_the_mend_is_the_target(tmp_path: Path) -> None:
    gate = min_cosine(tmp_path, "fp32")
    assert (gate.status, gate.value) == ("not-executed", None)
    assert "no engine was executed here" in gate.reason
    assert "on the target" in gate.mend


@pytest.mark.parametrize(
    ("metric", "why"),
    [("accuracy", "no engine was scored"), ("", "no [evaluation] metric is configured")],
)
def test_why_there_is_no_score_is_said_as_it_is(metric: str, why: str, tmp_path: Path) -> None:
    tables = {"build": {"precision": "int8"}, "gate": {"max-score-drop": 0.1}}
    config = Config.model_validate({**tables, "evaluation": {"metric": metric, "samples": "x"}})
    (gate,) = judging.gates(Run(config, Workspace(tmp_path)), {})
    assert (gate.status, gate.reason) == ("not-executed", why)


def test_what_a_lowering_lost_is_said(tmp_path: Path) -> None:
    facts = {"facts": {"left_out": ["louder: error 0.1"]}}
    engine = Stage("engine/onnxruntime", "", {}, {}, {}, 0.0, 0, facts, {}, {})
    (tmp_path / "export").mkdir()
    Signature(task="", architecture="", inputs=(), outputs=()).save(tmp_path / "export")
    run = Run(Config(), Workspace(tmp_path), stages={engine.name: engine})
    assert list(left_out(run)) == ["note: engine/onnxruntime: louder: error 0.1"]
