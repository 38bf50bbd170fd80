"""`doctor --bundle`, `inspect engine.plan`, `--profile` and the timing cache, without a GPU."""

import json
import struct
from pathlib import Path

import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy import gpu, trt_plan
from llmdeploy.deploy.trt import TensorRt, TensorRtRtx
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.choosing import options_of
from llmdeploy.toolchain.config import Build, Config
from llmdeploy.toolchain.options import sizes, spelled_out
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace


def plan(folder: Path, tag: bytes, *version: int) -> Path:
    path = folder / "engine.plan"
    path.write_bytes(tag + struct.pack("<I", 0) + b"\0" * 16 + bytes(version) + b"\0" * 4)
    return path


def test_a_bundle_says_which_of_its_engines_load_here(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.call(["doctor", "--bundle", str(bundle), "--json"]) == 0
    engines = {each["backend"]: each for each in json.loads(capsys.readouterr().out)["engines"]}
    assert engines["onnxruntime"]["fits"]
    assert cli.call(["doctor", "--bundle", str(bundle.parent / "none.tar.zst")]) == 3


@pytest.mark.parametrize(
    ("here", "why"),
    [("", "tensorrt 10.13.3.9 is not installed"), ("11.4.0.106", "and 11.4.0.106 is installed")],
)
def test_a_plan_of_another_version_is_told_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, why: str
) -> None:
    def version(_: str) -> str:
        if not here:
            raise trt_plan.metadata.PackageNotFoundError
        return here

    monkeypatch.setattr(trt_plan.metadata, "version", version)
    monkeypatch.setattr(gpu, "unusable", lambda: None)
    found = trt_plan.header(plan(tmp_path, b"ftrt", 10, 13, 3, 9))
    (said,) = trt_plan.unmet(found)
    assert why in said


def test_sizes_after_one_profile_are_all_taken() -> None:
    given = ["build", "--profile", "batch=1,8,64", "sequence=1,128,512", "--int8"]
    spelled = spelled_out(given)
    assert spelled.count("--profile") == 2
    assert sizes(["batch=1,8,64"]) == {"batch": (1, 8, 64)}
    assert sizes(None) is None
    with pytest.raises(ConfigError, match="batch=1,8,64"):
        sizes(["batch=8"])


def test_the_timing_cache_is_kept_in_the_workspace(tmp_path: Path) -> None:
    config = Config(build=Build(options={"tensorrt": {"workspace-mb": 64}}))
    run = Run(config, Workspace(tmp_path / "artifacts"))
    given = options_of(run, "tensorrt", TensorRt())
    assert given == {
        "timing-cache": str((tmp_path / "artifacts" / "timing").resolve()),
        "workspace-mb": 64,
    }
    assert options_of(run, "tensorrt-rtx", TensorRtRtx()) == {}
