"""A point's speed beside float's: all in turns, in one process, nobody else at work."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...deploy.latency import Timing, measure
from .. import registry
from ..feeds import timed_phases
from ..run import Run
from ..stages import engine, float_engine
from .clock import Clock

FLOAT, SAME, THIS = "float", "float, same options", "this"


def times(plain: Run, run: Run, target: str, clock: Clock, seconds: float) -> list[dict[str, Any]]:
    """A row a phase and shape, each timed for about so many seconds.

    Beside the point stand float as it is configured (`plain`), and float with the point's own
    options: a point is held against whichever is faster, so that fewer threads are no gain alone.
    """
    places = {FLOAT: _place(plain), SAME: _place(run)}
    places |= {THIS: run.folder(engine(run, target).name)}
    names = (FLOAT, THIS) if places[FLOAT] == places[SAME] else (FLOAT, SAME, THIS)
    backends = {name: "onnxruntime" if name != THIS else target for name in names}
    phases = {graph: timed_phases(run, graph) for graph in run.graphs}
    rows: list[dict[str, Any]] = []
    with clock.timing():
        for graph, found in phases.items():
            with ExitStack() as stack:
                opened = {
                    name: stack.enter_context(
                        registry.find("backends", backends[name])().runner(places[name] / graph)
                    )
                    for name in names
                }
                rows += [
                    {**row, "phase": " ".join(filter(None, (graph, phase)))}
                    for phase, feeds in found.items()
                    for row in _rows(opened, feeds, seconds)
                ]
    return rows


def _rows(
    opened: Mapping[str, Callable[[Any], object]], feeds: Mapping[str, Any], seconds: float
) -> Iterator[dict[str, Any]]:
    for shape, feed in feeds.items():
        yield _row(measure(opened, {shape: feed}, rounds=12, budget_s=seconds))


def _place(run: Run) -> Path:
    return run.folder(float_engine(run).name)


def _row(timings: Sequence[Timing]) -> dict[str, Any]:
    by_name = {timing.name: timing for timing in timings}
    this, first = by_name[THIS], by_name[FLOAT]
    share = min(1.0, by_name.get(SAME, first).median_ms / first.median_ms)
    row = {key: value for key, value in asdict(this).items() if key != "deciles"}
    speeds = {key: row[key] * share for key in ("speedup", "speedup_low", "speedup_high")}
    return {**row, **speeds, "float_ms": first.median_ms}


def slowest(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """The slowest call of one row, of any where none has one row; milliseconds."""
    one = [row for row in rows if row["shape"].startswith("1x")] or rows
    return max(row[key] for row in one)
