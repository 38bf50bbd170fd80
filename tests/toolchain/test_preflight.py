"""Names of the configuration that stand for nothing are refused before any work."""

import tomllib
from pathlib import Path

import pytest
from llmdeploy import ConfigError
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.preflight import preflight
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace


def look(text: str, folder: Path) -> None:
    preflight(Run(Config.model_validate(tomllib.loads(text)), Workspace(folder)))


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


@pytest.mark.parametrize(
    "name", ["parity", "parity.export", "parity.engine/tensorrt-rtx/encoder", "min-int8-share"]
)
def test_what_gates_are_called(name: str, tmp_path: Path) -> None:
    look(f'[gate]\nallow-unexecuted = ["{name}"]\n[build.options.tensorrt]\nx = 1', tmp_path)
