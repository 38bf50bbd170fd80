"""What a pipeline meets on a bad day: one line, the documented exit code, nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def llmdeploy(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line as a user runs it, in `folder`."""
    command = [sys.executable, "-m", "llmdeploy", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def config(folder: Path, checkpoint: object, samples: object = "", more: str = "") -> None:
    (folder / "llmdeploy.toml").write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n'
        f'[calibration]\nsamples = "{samples}"\nmax-length = 32\n{more}'
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code, done.stderr
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0], errors[0]


def nothing_half_written(workspace: Path) -> None:
    """Every folder at a final name has its record, and each file the record names."""
    for record in workspace.rglob("stage.json"):
        files = json.loads(record.read_text())["files"]
        assert all((record.parent / name).is_file() for name in files)
    for folder in workspace.iterdir() if workspace.exists() else ():
        if folder.is_dir() and not folder.name.startswith("."):
            assert list(folder.rglob("stage.json")), folder


@pytest.fixture
def damaged(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint to damage, in a folder with a configuration that names it."""
    shutil.copytree(tiny_bert, tmp_path / "checkpoint")
    config(tmp_path, "checkpoint")
    return tmp_path


def test_no_configuration(tmp_path: Path) -> None:
    refused(llmdeploy(tmp_path, "export"), 2, "llmdeploy init")


def test_an_unknown_key(tmp_path: Path) -> None:
    config(tmp_path, "x", more="[build]\nprecison = 'int8'\n")
    refused(llmdeploy(tmp_path, "build"), 2, "build.precison")


def test_an_unknown_model(tmp_path: Path) -> None:
    config(tmp_path, "nobody/no-such-model")
    done = llmdeploy(tmp_path, "export")
    refused(done, done.returncode, "nobody/no-such-model")
    assert done.returncode in (2, 4)
    assert not (tmp_path / "artifacts" / "export").exists()


def test_a_checkpoint_with_only_a_pickle(damaged: Path) -> None:
    (damaged / "checkpoint" / "model.safetensors").rename(
        damaged / "checkpoint" / "pytorch_model.bin"
    )
    done = llmdeploy(damaged, "export")
    refused(done, done.returncode, "pickle")
    assert done.returncode in (2, 3)


def test_a_truncated_checkpoint(damaged: Path) -> None:
    weights = damaged / "checkpoint" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    refused(llmdeploy(damaged, "export"), 3, "model.safetensors")
    nothing_half_written(damaged / "artifacts")


def test_remote_code_is_refused_before_anything_is_imported(damaged: Path) -> None:
    path = damaged / "checkpoint" / "config.json"
    settings = json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil.Evil"}}
    path.write_text(json.dumps(settings))
    (damaged / "checkpoint" / "evil.py").write_text("raise SystemExit('it ran')")
    done = llmdeploy(damaged, "export")
    refused(done, done.returncode, "trust")
    assert "it ran" not in done.stderr


@pytest.mark.parametrize(
    ("content", "word"), [(None, "No such file"), (b"", "no text"), (b"\x00\xff\xfe" * 99, "text")]
)
def test_a_calibration_file_that_is_none(
    tiny_bert: Path, tmp_path: Path, content: bytes | None, word: str
) -> None:
    if content is not None:
        (tmp_path / "samples.txt").write_bytes(content)
    config(tmp_path, tiny_bert, "samples.txt")
    done = llmdeploy(tmp_path, "build", "--int8")
    refused(done, done.returncode, word)
    assert done.returncode in (2, 3)
    nothing_half_written(tmp_path / "artifacts")


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4", "w8"])
def test_samples_that_are_not_there_are_missed_before_any_work(
    precision: str, tiny_bert: Path, tmp_path: Path
) -> None:
    config(tmp_path, tiny_bert, "samples.txt")
    done = llmdeploy(tmp_path, "build", "--precision", precision)
    refused(done, 2, "samples.txt", "name a file that exists")
    assert not (tmp_path / "artifacts" / "export").exists()


@pytest.mark.parametrize(
    ("samples", "method", "word"),
    [("samples.txt", "auto", "samples.txt"), ("there.txt", "nonsense", "one of entropy, min-max")],
)
def test_calibrate_misses_samples_and_methods_before_any_work(
    samples: str, method: str, word: str, tiny_bert: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.txt").write_text("a text\n" * 4)
    config(tmp_path, tiny_bert, samples)
    refused(llmdeploy(tmp_path, "calibrate", "--method", method), 2, word)
    assert not (tmp_path / "artifacts" / "export").exists()


def test_int8_without_samples_is_refused_before_any_work(tiny_bert: Path, tmp_path: Path) -> None:
    config(tmp_path, tiny_bert)
    refused(llmdeploy(tmp_path, "build", "--int8"), 2, "calibration samples")
    assert not (tmp_path / "artifacts" / "export").exists()


@pytest.mark.parametrize("name", ["prune", "sparsify", "low-rank"])
def test_a_fitted_pass_without_samples_is_refused_before_any_work(
    name: str, tiny_bert: Path, tmp_path: Path
) -> None:
    config(tmp_path, tiny_bert, more=f'[[passes]]\nuse = "{name}"\n')
    refused(llmdeploy(tmp_path, "build"), 2, "calibration samples")
    assert not (tmp_path / "artifacts" / "export").exists()


@pytest.mark.parametrize(
    ("precision", "named"), [("int8", "entropy, min-max"), ("int4", "'gptq'"), ("w8", "'gptq'")]
)
def test_a_method_that_no_such_precision_has(
    precision: str, named: str, tiny_bert: Path, tmp_path: Path
) -> None:
    config(tmp_path, tiny_bert)
    done = llmdeploy(tmp_path, "build", "--precision", precision, "--method", "nonsense")
    refused(done, 2, named)
    assert not (tmp_path / "artifacts" / "export").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(tiny_bert: Path, tmp_path: Path, small_disk: Path) -> None:
    config(tmp_path, tiny_bert)
    (small_disk / "ballast").write_bytes(b"x" * 400_000)
    refused(llmdeploy(tmp_path, "export", "-w", small_disk / "work"), 3, "space")
    assert not (small_disk / "work" / "export").exists()
    assert not list((small_disk / "work").glob(".*.part"))


@pytest.mark.parametrize(
    "stage", ["export", pytest.param("calibrate", marks=pytest.mark.slow), "engine+onnxruntime"]
)
def test_a_kill_in_the_middle_and_a_second_run(
    tiny_bert: Path, some_texts: Path, tmp_path: Path, stage: str
) -> None:
    config(tmp_path, tiny_bert, some_texts)
    workspace = tmp_path / "artifacts"
    verb = ["export"] if stage == "export" else ["build", "--int8"]
    command = [sys.executable, "-m", "llmdeploy", *verb]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as first:
        while not list(workspace.glob(f".{stage}.*.part")):
            assert first.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        first.send_signal(signal.SIGKILL)
    assert not (workspace / stage.replace("+", "/")).exists()
    nothing_half_written(workspace)
    done = llmdeploy(tmp_path, *verb, "--json")
    assert done.returncode == 0, done.stderr
    assert not list(workspace.glob(".*.part"))
    assert (workspace / stage.replace("+", "/") / "model.onnx").is_file()
    if stage != "export":
        fresh = {line["name"]: line["fresh"] for line in json.loads(done.stdout)["stages"]}
        assert (fresh["export"], fresh[stage.replace("+", "/")]) == (True, False)
