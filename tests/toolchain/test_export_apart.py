"""Torch's work in a process of its own: the same results, its errors whole, and its death told."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError, ExportError
from llmdeploy.toolchain import exporter
from llmdeploy.toolchain.exporter import apart

#: What a checkpoint's own code does that takes its process down.
DEADLY = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
#: The command line where Ctrl-C is heeded, as it is not of what a shell runs in the background.
HEEDS = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("llmdeploy", run_name="__main__", alter_sys=True)
"""


@contextmanager
def without_torch() -> Iterator[None]:
    """As in a command's process, which has not loaded torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "torch", raising=False)
        yield
        assert "torch" not in sys.modules


def test_an_export_is_made_apart(tiny_bert: Path, tmp_path: Path) -> None:
    with without_torch():
        made = apart.export(str(tiny_bert), tmp_path / "apart")
    assert made["architecture"] == "BertForSequenceClassification"
    assert {"model.onnx", "io.json"} < {path.name for path in (tmp_path / "apart").iterdir()}


def test_a_reference_apart_is_the_reference(tiny_bert: Path, tmp_path: Path) -> None:
    ids = np.array([[2, 5, 6, 3]], np.int64)
    feeds = [{"input_ids": ids + step, "attention_mask": np.ones_like(ids)} for step in range(3)]
    task = "text-classification"
    with without_torch():
        theirs = list(apart.reference(str(tiny_bert), feeds, tmp_path / "aside", task=task))
    assert not list((tmp_path / "aside").iterdir())
    for one, two in zip(theirs, exporter.reference(str(tiny_bert), feeds, task=task), strict=True):
        np.testing.assert_array_equal(one["logits"], two["logits"])


def test_an_error_comes_back_whole(tmp_path: Path) -> None:
    with without_torch(), pytest.raises(ConfigError) as caught:
        apart.export(str(tmp_path), tmp_path / "out", weights="borrowed")
    assert "borrowed" in caught.value.what
    assert caught.value.mend


def test_a_process_that_dies_is_told_in_a_line(tiny_bert: Path, tmp_path: Path) -> None:
    hostile = Path(shutil.copytree(tiny_bert, tmp_path / "hostile"))
    config = json.loads((hostile / "config.json").read_text())
    config |= {"model_type": "deadly", "auto_map": {"AutoConfig": "deadly.Config"}}
    (hostile / "config.json").write_text(json.dumps(config))
    (hostile / "deadly.py").write_text(DEADLY)
    told = r"died of signal 9, .*hostile, if memory ran out"
    with without_torch(), pytest.raises(ExportError, match=told):
        apart.export(str(hostile), tmp_path / "out", trust_remote_code=True)


def test_ctrl_c_ends_both_without_a_traceback(tiny_bert: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HEEDS, "export", str(tiny_bert), "-w", "work", "-q"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("work/.export.*.part")):
        time.sleep(0.05)
    time.sleep(1.0)  # the other process has begun
    subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in said
    assert not (tmp_path / "work" / "export").exists()
