"""A release's latencies beside those of a report that tells the same."""

from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import against, measured
from llmdeploy.toolchain.checks import label_of
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Stage, Workspace


def timing(name: str, phase: str, low: float) -> dict[str, Any]:
    figures = {"low_ms": low, "median_ms": low + 1, "high_ms": low + 2, "p90_ms": 9.0}
    more = {"p99_ms": 9.0, "deciles": (), "speedup": 1.0, "call": "faster", "runs": 5}
    return {"name": name, "phase": phase, "shape": "1x32", **figures, **more}


@pytest.mark.parametrize(
    "tables", [{"quantize": {"cache": "int8"}}, {"build": {"precision": "int8"}}]
)
def test_a_report_tells_the_same_engine_at_every_phase(
    tables: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "threads", lambda _: 2)
    run = Run(Config.model_validate(tables), Workspace(tmp_path))
    timings = [
        timing(name, phase, low)
        for phase in ("prefill", "decode")
        for name, low in (("fp32", 100.0), (label_of(run), 10.0))
    ]
    name = "latency/onnxruntime"
    run.stages[name] = Stage(name, "", {}, {}, {}, 0.0, 0, {"timings": timings}, {}, {})
    ours = against.timed(timings)
    assert ours[("prefill", 1, 32)] == (10.0, 12.0)
    assert against.reported(measured.latencies(run)) == ours
