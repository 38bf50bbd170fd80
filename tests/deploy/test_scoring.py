"""What engines write, scored: a causal engine, greedily, beside another one's texts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.toolchain.config import Config, Evaluation
from llmdeploy.toolchain.judging import gates
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.scoring import score
from llmdeploy.toolchain.workspace import Stage, Workspace

from .causal import write_causal

TEXTS = ["the model", "hello", "is the text", "word the model"]
NEW = 5


def stage(name: str) -> Stage:
    return Stage(
        name=name,
        key="",
        inputs={},
        options={},
        versions={},
        seconds=0.0,
        peak_memory_bytes=0,
        results={"backend": "onnxruntime", "precision": "int8", "facts": {}},
        files={"name": name},
        stats={},
    )


def run(folder: Path, metric: str, seed: int = 3) -> Run:
    """A workspace whose float engine wrote the gold answers itself, and another engine."""
    engine = write_causal(folder / "artifacts/float/onnxruntime")
    write_causal(folder / "artifacts/export")
    write_causal(folder / "artifacts/engine/onnxruntime", seed)
    with load(engine) as session:
        said = [each.text for each in session.generate(TEXTS, Sampling(max_new_tokens=NEW))]
    (folder / "asked.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "gold.txt").write_text("\n".join(said) + "\n")
    table = Evaluation(
        metric=metric, samples="asked.txt", labels="gold.txt", max_new_tokens=NEW, batch=3
    )
    return Run(Config(evaluation=table, folder=folder), Workspace(folder / "artifacts"))


@pytest.mark.parametrize(("metric", "best"), [("exact-match", 1.0), ("wer", 0.0)])
@pytest.mark.parametrize("seed", [3, 4])
def test_what_is_written_is_scored_beside_float(
    tmp_path: Path, metric: str, best: float, seed: int
) -> None:
    made = run(tmp_path, metric, seed)
    reference = score(made, stage("float/onnxruntime"))
    assert reference.results["value"] == best
    found = score(made, stage("engine/onnxruntime"), stage("float/onnxruntime")).results
    same = seed == 3
    assert (found["value"] == best) is same
    assert (found["prefix_agreement"] == 1.0) is same
    assert 0 <= found["prefix_agreement"] <= 1
    assert found["against"]["low"] <= found["against"]["change"] <= found["against"]["high"]
    assert "mean_cosine" not in found


def test_a_drop_of_what_is_written_fails_its_gate(tmp_path: Path) -> None:
    made = run(tmp_path, "exact-match", seed=4)
    config = made.config.model_copy(
        update={
            "gate": made.config.gate.model_copy(update={"max_score_drop": 0.01}),
            "build": made.config.build.model_copy(update={"precision": "int8"}),
        }
    )
    made = dataclasses.replace(made, config=config)
    score(made, stage("float/onnxruntime"))
    score(made, stage("engine/onnxruntime"), stage("float/onnxruntime"))
    (gate,) = (each for each in gates(made, {}) if each.name == "max-score-drop")
    assert gate.status == "fail"
    assert "95 % in [" in gate.reason


def test_texts_of_like_length_run_together_and_each_keeps_its_place(tmp_path: Path) -> None:
    texts = [
        "the model is the text",
        "is word",
        "the model",
        "is the text",
        "text is the model word",
    ]
    kept: list[np.ndarray] = []
    for batch in (1, 3):
        made = run(tmp_path / str(batch), "perplexity")
        (made.config.folder / "asked.txt").write_text("\n".join(texts) + "\n")
        table = made.config.evaluation.model_copy(update={"labels": "", "batch": batch})
        made = dataclasses.replace(
            made, config=made.config.model_copy(update={"evaluation": table})
        )
        score(made, stage("float/onnxruntime"))
        kept.append(np.load(made.folder("score/float/onnxruntime") / "outputs.npy"))
    alone, together = kept
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert len({row.tobytes() for row in alone}) == len(texts)  # so that a wrong place is seen


def test_a_metric_of_one_graph_refuses_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(tmp_path, "perplexity")
    monkeypatch.setattr(Run, "graphs", ("encoder", "decoder"))
    with pytest.raises(ConfigError, match="exact-match or wer"):
        score(made, stage("float/onnxruntime"))
