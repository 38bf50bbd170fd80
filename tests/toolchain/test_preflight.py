"""Names of the configuration that stand for nothing are refused before any work."""

import tomllib
from pathlib import Path

import onnx_ir as ir
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.signature import Signature
from llmdeploy.passes import save
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.preflight import preflight, suits
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace


def run_of(text: str, folder: Path) -> Run:
    return Run(Config.model_validate(tomllib.loads(text)), Workspace(folder))


def look(text: str, folder: Path) -> None:
    preflight(run_of(text, folder))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[build.options.onnxrutime]\nthreads = 1", "onnxrutime.*one of .*onnxruntime"),
        ("[bundle.options.trition]\nx = 1", "trition.*one of .*triton"),
        ('[gate]\nallow-unexecuted = ["parity.engine/tensorrtx"]', "tensorrtx.*one of .*tensorrt"),
        ('[gate]\nallow-unexecuted = ["max-slowdwn"]', "max-slowdwn.*one of .*max-slowdown"),
        ('[gate]\nallow-unexecuted = ["min-cosine.engine"]', "min-cosine.engine"),
        ('[evaluation]\nsamples = "gone.txt"', "gone.txt.*name a file that exists"),
        ('[bundle]\nversion = "1.0/beta"', r"1\.0/beta.*\[bundle\] version"),
    ],
)
def test_a_name_of_nothing(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        look(text, tmp_path)


@pytest.mark.parametrize("date", ["1700000000000", "9" * 30, "yesterday", "-1"])
def test_a_date_that_is_none(date: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
    with pytest.raises(ConfigError, match=r"no number of seconds.*SOURCE_DATE_EPOCH"):
        look("", tmp_path)


@pytest.mark.parametrize(
    "name", ["parity", "parity.export", "parity.engine/tensorrt-rtx/encoder", "min-int8-share"]
)
def test_what_gates_are_called(name: str, tmp_path: Path) -> None:
    look(f'[gate]\nallow-unexecuted = ["{name}"]\n[build.options.tensorrt]\nx = 1', tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "onnxruntime computes no bfloat16, of which the export is"),
        ('backends = ["tensorrt-rtx", "onnxruntime"]', "onnxruntime computes no bfloat16"),
        ('backends = ["tensorrt-rtx"]\nprecision = "int8"', "measures what is rounded"),
        ('backends = ["tensorrt-rtx"]\nprecision = "bf16"', "measures what is rounded"),
        ('backends = ["tensorrt-rtx"]', None),
    ],
)
def test_what_is_made_of_an_export_in_bfloat16(text: str, told: str | None, tmp_path: Path) -> None:
    graph = """<ir_version: 10, opset_import: ["" : 20]>
        g (bfloat16[b,4] x) => (bfloat16[b,4] y) { y = Tanh (x) }"""
    save(ir.from_onnx_text(graph), tmp_path / "export")
    Signature(task="", architecture="", inputs=(), outputs=()).save(tmp_path / "export")
    run = run_of(f"[build]\n{text}", tmp_path)
    if told is None:
        suits(run)
        return
    with pytest.raises(ConfigError, match=rf"{told}.*\[model\] dtype.*--dtype float32"):
        suits(run)
