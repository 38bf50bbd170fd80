"""`llmdeploy tune` as people run it, on a tiny classifier; and what it answers to bad input."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmdeploy import Error, MissingError
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.report import Tuning
from llmdeploy.toolchain.tuning.trial import hopeless
from safetensors.numpy import load_file, save_file

WORDS = ("good", "bad", "news")
Tune = Callable[..., int]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with a configuration, texts to calibrate on and others to evaluate."""
    folder = tmp_path_factory.mktemp("tune")
    texts = [f"the {word} of release {n} is {word}" for n in range(40) for word in WORDS]
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    labelled = [f"a {word} was {n}\t{n % 2}" for n in range(20) for word in WORDS]
    (folder / "evaluation.tsv").write_text("\n".join(labelled) + "\n")
    (folder / "llmdeploy.toml").write_text(
        f'[model]\ncheckpoint = "{tiny_bert}"\n'
        '[calibration]\nsamples = "texts.txt"\nmax-length = 32\n'
        '[evaluation]\nmetric = "accuracy"\nsamples = "evaluation.tsv"\nmax-length = 32\n'
    )
    return folder


@pytest.fixture
def tune(project: Path) -> Tune:
    def run(*words: str, more: str = "") -> int:
        config = project / "llmdeploy.toml"
        if more:
            config = project / "other.toml"
            config.write_text((project / "llmdeploy.toml").read_text() + more)
        where = ["-c", str(config), "-w", str(project / "artifacts")]
        return cli.call(["tune", *words, *where])

    return run


def test_it_ends_in_a_configuration_whose_release_passes(project: Path, tune: Tune):
    asked = ("--min-speedup", "0.1", "--max-drop", "0.5", "--max-size", "50")
    assert tune(*asked, "--trials", "2", "--jobs", "2", "--minutes", "3", "-q") == 0
    found = Tuning.model_validate_json((project / "artifacts" / "tune.json").read_bytes())
    assert found.chosen
    assert len(found.points) == 2
    assert "held out" in found.tuned_on
    assert "evaluation.tsv, which no trial saw" in found.verified_on
    config = project / "llmdeploy.tuned.toml"
    assert "max-score-drop = 0.5" in config.read_text()
    where = ["-c", str(config), "-w", str(project / "artifacts"), "-q"]
    assert cli.call(["release", *where]) == 0
    report = json.loads((project / "artifacts" / "report.json").read_text())
    fresh = {stage["name"]: stage["fresh"] for stage in report["stages"]}
    assert all(fresh[name] for name in fresh if not name.startswith("bundle/"))
    assert report["tuning"]["chosen"] == found.chosen
    page = (project / "artifacts" / "report.html").read_text()
    assert 'id="tuning"' in page
    assert "<script" not in page


def test_limits_that_nothing_reaches_are_exit_1_with_the_curve(
    project: Path, tune: Tune, capsys: pytest.CaptureFixture[str]
):
    (project / "llmdeploy.tuned.toml").unlink(missing_ok=True)
    assert tune("--min-speedup", "1000", "--trials", "1", "-q") == 1
    assert not (project / "llmdeploy.tuned.toml").exists()
    assert "no point holds the limits: nearest is int8" in capsys.readouterr().err
    found = Tuning.model_validate_json((project / "artifacts" / "tune.json").read_bytes())
    assert found.chosen is None
    assert found.points[0].standing == "stopped"
    assert "asked for 1000" in found.points[0].reason
    assert "was not looked at" in found.verified_on
    assert "No point holds every limit" in (project / "artifacts" / "tune.html").read_text()


def test_what_was_measured_of_another_model_is_measured_anew(
    project: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint, config = tmp_path / "model", tmp_path / "llmdeploy.toml"
    shutil.copytree(tiny_bert, checkpoint)
    for name in ("texts.txt", "evaluation.tsv"):
        shutil.copy(project / name, tmp_path)
    config.write_text((project / "llmdeploy.toml").read_text().replace(str(tiny_bert), "model"))
    where = ["-c", str(config), "-w", str(tmp_path / "artifacts")]
    tune = ["tune", "--min-speedup", "1000", "--trials", "1", *where]

    def measured() -> bool:
        assert cli.call(tune) == 1
        return "; stopped, " in capsys.readouterr().err

    assert measured()
    assert not measured()
    weights = checkpoint / "model.safetensors"
    save_file({k: v * 1.01 for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    assert measured()
    config.write_text(f"{config.read_text()}[gate]\nmin-cosine = 0.5\n")
    assert measured()


def test_advice_alone_searches_nothing(tune: Tune, capsys: pytest.CaptureFixture[str]):
    assert tune("--min-speedup", "1.5", "--advise", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {each["what"] for each in found["advice"]} >= {"int8", "prune", "threads"}
    assert found["roofline"][0]["bound"] in ("compute", "memory")


@pytest.mark.parametrize(
    ("words", "more", "code", "said"),
    [
        ((), "", 2, "no limit is given"),
        (("--max-drop", "2"), "", 2, "--max-drop cannot be 2"),
        (("--max-drop", "0.1", "--target", "abacus"), "", 2, "abacus"),
        (("--max-drop", "0.1", "--jobs", "some"), "", 2, "no place to run jobs"),
        (("--max-drop", "0.1", "--target", "tensorrt-rtx"), "", 4, "trials cannot be timed"),
        (
            ("--max-drop", "0.1"),
            '[tune]\nsamples = "evaluation.tsv"\n',
            2,
            "100% of the tuning texts are evaluation data",
        ),
        (("--max-drop", "0.1"), '[tune]\nsamples = "gone.tsv"\n', 2, "cannot read"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(
    tune: Tune,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    more: str,
    code: int,
    said: str,
):
    assert tune(*words, "-q", more=more) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_nothing_to_score_on_is_said(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "llmdeploy.toml").write_text(f'[model]\ncheckpoint = "{tiny_bert}"\n')
    where = ["-c", str(tmp_path / "llmdeploy.toml"), "-w", str(tmp_path / "artifacts"), "-q"]
    assert cli.call(["tune", "--max-drop", "0.1", *where]) == 2
    assert "nothing to score trials on" in capsys.readouterr().err


def test_a_full_disk_is_no_points_fault():
    full, other = Error("cannot write"), Error("cannot be made")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    other.__cause__ = ValueError("a shape")
    assert hopeless(full)
    assert hopeless(MissingError("onnxruntime is not installed"))
    assert not hopeless(other)
