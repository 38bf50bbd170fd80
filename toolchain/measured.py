"""From stage records to the report's proof: parity, scores, latencies, memory, activations."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from . import report as rep
from .joining import qualified
from .judging import engine_facts
from .machine import machine
from .run import Run


def parities(run: Run) -> Iterable[rep.Parity]:
    """Every comparison that was made."""
    fields = rep.OutputParity.model_fields
    for stage in run.stages.values():
        if not stage.name.startswith("parity/"):
            continue
        found = stage.results
        outputs = ({key: each[key] for key in each if key in fields} for each in found["outputs"])
        yield rep.Parity(
            name=found["name"],
            against=found["against"],
            ok=found["ok"],
            samples=found["samples"],
            outputs=tuple(rep.OutputParity(**each) for each in outputs),
            agreement=tuple(_agreements(found.get("agreement", {}))),
            located=_located(found.get("located")),
            inputs=found["inputs"],
            reason=found["reason"] or None,
        )


def _agreements(found: Mapping[str, Mapping[str, Any]]) -> Iterable[rep.Agreement]:
    fields = rep.Agreement.model_fields
    for name, each in found.items():
        yield rep.Agreement(name=name, **{key: each[key] for key in each if key in fields})


def _located(found: Mapping[str, Any] | None) -> rep.Located | None:
    if found is None:
        return None
    return rep.Located(
        tensor=found.get("tensor") or "",
        node=found.get("node") or "",
        by=found.get("pass") or "",
        error=found.get("error"),
        reason=found["reason"],
    )


def not_compared(unexecuted: Mapping[str, str]) -> Iterable[rep.Parity]:
    """What could not be compared here, and why."""
    for name, reason in unexecuted.items():
        yield rep.Parity(name=name, against="its graph", ok=None, reason=reason)


def scores(run: Run) -> Iterable[rep.Score]:
    """The metric of each engine that was scored."""
    for stage in run.stages.values():
        if not stage.name.startswith("score/"):
            continue
        found, against = stage.results, stage.results.get("against")
        yield rep.Score(
            name=stage.name.removeprefix("score/"),
            metric=found["metric"],
            value=_finite(found["value"]),
            value_reason=None if _finite(found["value"]) is not None else "it is not a number",
            against_float=_finite(1 + against["change"]) if against else None,
            interval=_interval(against) if against else None,
            prefix_agreement=found.get("prefix_agreement"),
            samples=found["samples"],
            data=found["data"],
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(against: Mapping[str, float]) -> tuple[float, float] | None:
    low, high = 1 + against["low"], 1 + against["high"]
    return (low, high) if math.isfinite(low + high) else None


def threads(run: Run) -> int:
    """How many threads the engines of ONNX Runtime run on."""
    stages = (run.stages.get(name) for name in ("engine/onnxruntime", "float/onnxruntime"))
    facts = next((engine_facts(run, stage)[0] for stage in stages if stage), {})
    return facts.get("threads") or machine().cores


def latencies(run: Run) -> Iterable[rep.Latency]:
    """Every engine at every shape and phase."""
    stage = run.stages.get("latency/onnxruntime")
    fields, count = rep.Latency.model_fields, threads(run)
    for timing in stage.results["timings"] if stage else ():
        sizes = [int(size) for size in timing["shape"].split("x")]
        figures = {key: timing[key] for key in timing if key in fields and key != "name"}
        yield rep.Latency(
            name=f"{timing['name']} {timing['phase']}".strip(),
            batch=sizes[0],
            sequence=sizes[1] if len(sizes) > 1 else 1,
            ratio=timing["speedup"],
            threads=count,
            **figures,
        )


def footprints(run: Run) -> Iterable[rep.Footprint]:
    """Every engine that was run alone."""
    for stage in run.stages.values():
        if stage.name.startswith("footprint/"):
            yield rep.Footprint(name=stage.name.removeprefix("footprint/"), **stage.results)


def activations(run: Run) -> dict[str, dict[str, Any]]:
    """Histogram and extremes of what each weight MatMul is given, by its node's name."""
    found: dict[str, dict[str, Any]] = {}
    if "calibrate" not in run.stages:
        return found
    for graph in run.graphs:
        path = run.folder("calibrate", graph) / "ranges.json"
        if not path.is_file():
            continue
        for each in json.loads(path.read_text(encoding="utf-8"))["ranges"].values():
            seen = {
                "histogram": each["histogram"],
                "histogram_width": each["histogram_width"],
                "seen": (each["low"], each["high"]),
            }
            found |= {qualified(graph, layer): seen for layer in each["layers"]}
    return found
