"""Data to tune on is not the data of the evaluation, whatever its samples are."""

from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.labelled import answers
from llmdeploy.deploy.metrics import Metric
from llmdeploy.toolchain import registry
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.tuning import split as splitting
from llmdeploy.toolchain.workspace import Workspace

CLIPS = 8


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A configuration with sounds to evaluate on, `one`, and as many to tune on, `two`."""
    drawn = np.random.default_rng(0).standard_normal((2, CLIPS, 4, 10)).astype(np.float32)
    for name, sounds in zip(("one", "two"), drawn, strict=True):
        np.savez(tmp_path / f"{name}.npz", input_features=sounds)
        (tmp_path / f"{name}.txt").write_text("the same words\n" * CLIPS)
    metric: Metric = registry.find("metrics", "wer")()

    def labelled(run: Run) -> object:
        table = run.config.evaluation
        data = answers(run.config.path(table.samples), run.config.path(table.labels), "utf-8")
        return metric, data

    monkeypatch.setattr(splitting, "labelled", labelled)  # without an export, whose labels it reads
    tables = {"evaluation": _table("one") | {"metric": "wer"}, "tune": _table("two")}
    config = Config.model_validate(tables).model_copy(update={"folder": tmp_path})
    return Run(config, Workspace(tmp_path / "artifacts"))


def _table(name: str) -> dict[str, str]:
    return {"samples": f"{name}.npz", "labels": f"{name}.txt"}


def test_other_sounds_are_tuned_on_and_the_same_are_refused(run: Run, tmp_path: Path) -> None:
    assert splitting.split(run, tmp_path / "data").items == CLIPS
    (tmp_path / "two.npz").write_bytes((tmp_path / "one.npz").read_bytes())
    with pytest.raises(ConfigError, match="100% of the tuning texts are evaluation data"):
        splitting.split(run, tmp_path / "data")
