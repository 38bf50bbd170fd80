"""What a stage is fresh by: what it reads, wherever that lies, and the machine where that tells."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from llmdeploy.deploy.runtime import load
from llmdeploy.toolchain import checks, judging, stages
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.config import load as read
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Stage, Workspace
from safetensors.numpy import load_file, save_file

CONFIG = """[model]\ncheckpoint = "model"\nweights = "reference"
[calibration]\nsamples = "texts.txt"\ncount = 16\n[build]\nprecision = "{}"\n"""
FEED = {
    "input_ids": np.array([[2, 9, 5, 3]]),
    "attention_mask": np.ones((1, 4), np.int64),
    "token_type_ids": np.zeros((1, 4), np.int64),
}


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, some_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fresh")
    shutil.copytree(tiny_bert, root / "model")
    shutil.copy(some_texts, root / "texts.txt")
    return root


def begin(folder: Path, precision: str = "fp32") -> Run:
    path = folder / "llmdeploy.toml"
    path.write_text(CONFIG.format(precision))
    return Run(read(path), Workspace(folder / "artifacts"))


def retrain(model: Path) -> None:
    """Other weights of the same shapes, and other names of the classes."""
    path = model / "model.safetensors"
    weights = {name: each + np.float32(0.25) for name, each in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = {"0": "worse", "1": "better"}
    config["label2id"] = {"worse": 0, "better": 1}
    (model / "config.json").write_text(json.dumps(config))


def test_a_retrained_checkpoint_is_in_the_engine_though_its_weights_were_left(folder: Path) -> None:
    def answer() -> tuple[Stage, list[float], tuple[str, ...]]:
        run = begin(folder)
        stage = stages.engine(run, "onnxruntime")
        with load(run.folder(stage.name)) as session:
            return stage, session.run(FEED)["logits"].ravel().tolist(), session.signature.labels

    _, before, _ = answer()
    assert answer()[0].fresh
    retrain(folder / "model")
    stage, after, labels = answer()
    assert not stage.fresh
    assert after != before
    assert labels == ("worse", "better")


def test_new_bytes_of_samples_are_measured_on_again(folder: Path) -> None:
    run = begin(folder, "fp16")
    stages.halve(run)
    assert stages.halve(begin(folder, "fp16")).fresh
    (folder / "texts.txt").write_text("good news of the release\n" * 40)
    assert not stages.halve(begin(folder, "fp16")).fresh


def test_times_are_of_the_machine_they_are_told_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_timings", lambda *_: iter(()))
    checks.latency(begin(folder))
    assert checks.latency(begin(folder)).fresh
    here = checks.machine()
    monkeypatch.setattr(checks, "machine", lambda: here.model_copy(update={"cpu": "another"}))
    assert not checks.latency(begin(folder)).fresh


def scored(change: float) -> Stage:
    against = {"change": change, "low": change, "high": change}
    return Stage("score", "", {}, {}, {}, 0.0, 0, {"against": against}, {}, {})


@pytest.mark.parametrize(
    ("tables", "change", "status"),
    [
        ({"build": {"precision": "int8"}}, float("nan"), "fail"),
        ({"build": {"precision": "int8"}}, -0.5, "fail"),
        ({"build": {"precision": "int8"}}, 0.5, "pass"),
        ({"quantize": {"cache": "int8"}}, -0.5, "fail"),
    ],
)
def test_a_lost_score_fails_the_gate_whatever_lost_it(
    tables: dict[str, dict[str, str]], change: float, status: str, tmp_path: Path
) -> None:
    config = Config.model_validate({**tables, "gate": {"max-score-drop": 0.01}})
    run = Run(config, Workspace(tmp_path), stages={judging.SCORE: scored(change)})
    (gate,) = (each for each in judging.gates(run, {}) if each.name == "max-score-drop")
    assert gate.status == status
