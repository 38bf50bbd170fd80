from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.latency import Timing
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.ort_session import Settings
from llmdeploy.deploy.ort_tune import best, candidates

from .test_ort_int8 import matmul

FIRST = Timing("as asked", "least", 9, *[1.0] * 9, (), 1.0, 1.0, 1.0, "within noise")


def timing(name: str, speedup: float, call: str) -> Timing:
    return replace(FIRST, name=name, speedup=speedup, call=call)  # type: ignore[arg-type]


def test_only_what_is_faster_and_never_slower_is_taken() -> None:
    noise = timing("a", 1.4, "within noise")
    faster, slower = timing("b", 1.2, "faster"), timing("b", 0.8, "slower")
    assert best([FIRST, noise]) == "as asked"
    assert best([FIRST, noise, faster]) == "b"
    assert best([FIRST, faster, slower]) == "as asked"
    assert best([FIRST, faster, timing("c", 1.3, "faster")]) == "c"


def test_one_change_is_tried_at_a_time() -> None:
    asked = Settings(threads=3)
    tried = candidates(asked, 8)
    assert [each.threads for each in tried.values()] == [3, 8, 4, 1, 3, 3, 3]
    assert len({each.model_dump_json() for each in tried.values()}) == len(tried)


def test_an_engine_is_tuned_where_it_is_built(tmp_path: Path) -> None:
    ir.save(matmul(), tmp_path / "model.onnx")
    profile = Profile({"N": (1, 2, 4), "S": (1, 8, 16)})
    built = OnnxRuntime().build(
        tmp_path / "model.onnx", tmp_path / "engine", profile, {"tune": True}
    )
    assert {each["shape"] for each in built.facts["tuned"]} == {"least", "usual"}
    kept = Settings.load(tmp_path / "engine")
    assert kept.model_dump()["threads"] == built.facts["threads"]
    with OnnxRuntime().runner(tmp_path / "engine"):
        pass


def test_a_dimension_without_bounds_is_named(tmp_path: Path) -> None:
    ir.save(matmul(), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="no feed can be made for input x"):
        OnnxRuntime().build(tmp_path / "model.onnx", tmp_path / "engine", Profile(), {"tune": True})
