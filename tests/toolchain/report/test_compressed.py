"""The parts of the page on compression and on tuning: all figures there, nothing of a name markup."""

import json
from html import escape
from pathlib import Path
from typing import Any

import jsonschema
import llmdeploy.toolchain.report as room
import pytest
from llmdeploy.toolchain.report import Report, Tuning
from llmdeploy.toolchain.report.html import page
from llmdeploy.toolchain.report.scatter import Axis, Spot, scatter
from llmdeploy.toolchain.report.schema import schema
from llmdeploy.toolchain.tuning.page import page as tuning_page

HOSTILE = '<script>alert("&")</script>'
LAYERS = [
    {"node": HOSTILE, "by": "prune", "kind": "units", "of": "neurons", "before": 64, "after": 48},
    {"node": "b", "by": "low-rank", "kind": "rank", "of": "rank", "before": 32, "after": 8,
     "error": 0.02},
    {"node": "c", "by": "sparsify", "kind": "zeros", "of": "zeros", "before": 1, "after": 0.5,
     "error": 0.01},
]  # fmt: skip
COMPRESSED = {
    "loss": 0.0123,
    "planned_loss": 0.0456,
    "latency_ratio": 1.61,
    "macs_before": 1000,
    "macs_after": 700,
    "layers": LAYERS,
    "left_alone": {"d": "shared with another"},
    "notes": ["few samples"],
}


def point(name: str, standing: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "settings": {"precision": "int8"}, "standing": standing, "seconds": 3.0,
            **more}  # fmt: skip


TUNED = {
    "version": "0",
    "target": HOSTILE,
    "limits": {"min_speedup": 2.0, "max_drop": 0.01},
    "prefer": "score",
    "tuned_on": "900 labelled items",
    "verified_on": "The taken point was then scored on evaluation.txt, which no trial saw.",
    "hardware": {"processor": "a CPU", "gflop_per_s": 100.0},
    "roofline": [
        {"shape": "1x128", "gflop": 2.7, "megabytes": 60.0, "intensity": 45.0, "compute_ms": 10.0,
         "memory_ms": 1.0, "bound": "compute"}
    ],
    "advice": [{"what": "int4", "tried": False, "why": "no call waits for weights"}],
    "points": [
        point("int8", "chosen", drop=0.001, speedup=2.2, size_mb=59.0, latency_ms=9.0, score=0.84),
        point(HOSTILE, "stopped", reason="speed-up 1.2 times, asked for 2"),
        point("fp32", "front", drop=0.0, speedup=1.0, size_mb=90.0, latency_ms=20.0),
    ],
    "lost": ["its process died 1 times"],
    "chosen": "int8",
    "seconds": 100.0,
    "seed": 0,
    "jobs": "2",
}  # fmt: skip


def test_what_was_taken_away_is_told_by_layer_with_its_price(data: dict[str, Any]):
    text = page(Report.model_validate({**data, "compression": COMPRESSED}))
    assert 'id="compression"' in text
    for figure in ("0.0123", "0.0456", "1.61", "70.0 %", "48 of 64 neurons", "50.0 % zeros"):
        assert figure in text, figure
    assert "1 left alone" in text
    assert "<script" not in text


def test_a_figure_of_compression_that_was_not_measured_says_why(data: dict[str, Any]):
    alike = {**COMPRESSED, "planned_loss": None, "planned_loss_reason": "every layer alike"}
    assert "every layer alike" in page(Report.model_validate({**data, "compression": alike}))
    with pytest.raises(ValueError, match="does not say why"):
        Report.model_validate({**data, "compression": {**COMPRESSED, "latency_ratio": None}})


def test_a_search_is_shown_whole_in_the_report_and_alone(data: dict[str, Any]):
    for text in (
        page(Report.model_validate({**data, "tuning": TUNED})),
        tuning_page(Tuning.model_validate(TUNED)),
    ):
        assert 'id="tuning"' in text
        assert text.count("<title>int8: ") == text.count("<title>fp32: ") == 2  # on both charts
        assert f"<title>{escape(HOSTILE)}: " not in text  # it has no figures
        for words in ("2.20", "no call waits for weights", "which no trial saw", "asked for 2"):
            assert words in text, words
        assert "<script" not in text


def test_the_schema_of_a_search_is_in_step_with_its_records():
    written = json.loads((Path(room.__file__).parent / "tune.schema.json").read_text())
    assert written == schema(Tuning)
    found = Tuning.model_validate({**TUNED, "chosen": None, "chosen_reason": "too slow"})
    jsonschema.validate(json.loads(found.model_dump_json()), written)


def test_no_search_no_part(data: dict[str, Any]):
    text = page(Report.model_validate(data))
    assert 'id="tuning"' not in text
    assert 'id="compression"' not in text


@pytest.mark.parametrize("values", [(0.0,), (0.5, 0.5), (1e-7, 3e6), (2.0, 2.000001)])
def test_any_points_lie_in_the_plane(values: tuple[float, ...]):
    spots = [Spot(value, value, 0.5, "a point", "good") for value in values]
    text = scatter(spots, Axis("x", 1.0), Axis("y"), "a chart")
    assert text.count("<circle") == len(values)
    assert "nan" not in text
