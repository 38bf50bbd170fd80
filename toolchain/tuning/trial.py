"""One trial: a point is built and measured, cheap looks first, until it is done or out of reach."""

import errno
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import Error, MissingError
from ...deploy.backend import Feed
from .. import checks, registry, scoring
from ..feeds import calibration_feeds, logit_names, mask_name
from ..int8.loss import Loss
from ..run import Run
from ..stages import engine, float_engine, neutral, slim
from ..workspace import Stage, Workspace
from .clock import Clock
from .limits import FIGURES, says, violations, worst
from .result import Asked, Result, StopError
from .shelf import Shelf
from .space import configured
from .speed import slowest, times
from .split import tuned_on

#: Seconds a shape is timed for: at a first look, and for the record.
LOOK, RECORD = 1.0, 4.0


class Trial:
    """A point on its way; `figures` grow by each look."""

    def __init__(self, asked: Asked, clock: Clock) -> None:
        root = Path(asked.workspace)
        self._asked, self._clock = asked, clock
        self.shelf = Shelf(root / "tune" / "stages", clock, Workspace(root))
        config = configured(asked.base(), asked.settings, asked.target, asked.replaced)
        self._run = Run(config, self.shelf)
        self.figures: dict[str, float] = {}
        self.shapes: tuple[dict[str, Any], ...] = ()
        self.beyond: dict[str, float] = {}

    def __call__(self) -> None:
        """Look after look.

        Raises:
            StopError: a limit is out of reach, or the point cannot be made.
        """
        for look in (self._built, self._small, self._timed_short, self._scored, self._timed):
            look()
            self._held()
        if self._asked.limits.max_memory_mb is not None:
            self._remembered()
            self._held()

    def _held(self) -> None:
        """Stop where a figure that is sure misses its limit; the others wait for a better look."""
        limits = self._asked.limits
        self.beyond |= violations(limits, self.figures)
        missed = worst(self.beyond)
        if missed and missed not in ("max_drop", "min_speedup", "max_latency_ms"):
            raise StopError(self._words(missed), missed)

    def _words(self, missed: str) -> str:
        found, limits = violations(self._asked.limits, self.figures), self._asked.limits
        if missed not in found:
            return missed
        return says(missed, self.figures[FIGURES[missed].figure], limits.asked[missed])

    def _built(self) -> None:
        """Graph, engine and its size, and whether each step is near enough to the one before."""
        run, target = self._run, self._asked.target
        dense, made = float_engine(run), engine(run, target)
        self.figures["size_mb"] = run.workspace.size(made.name) / 1e6
        self.figures["size_share"] = _share(run, made, dense)
        parities = [checks.optimize_parity]
        parities += [checks.compress_parity] if slim(run).name == "compress" else []
        parities += [checks.quantize_parity] if neutral(run).name == "quantize" else []
        for parity in (*parities, lambda run: checks.engine_parity(run, target)):
            for stage in parity(run):
                if not stage.results["ok"]:
                    what = f"parity of {stage.results['name']}: {stage.results['reason']}"
                    raise StopError(what)

    def _small(self) -> None:
        if self._asked.split.small is not None:
            self._drop(self._score(self._asked.split.small))

    def _scored(self) -> None:
        whole = self._asked.split.whole
        if whole is None:
            self.figures["drop"] = self._loss()
            return
        found = self._score(whole)
        self._drop(found)
        least = self._run.config.gate.min_cosine
        if least is not None and found.get("mean_cosine", 1.0) < least:
            what = f"mean cosine {found['mean_cosine']:.4f} of the outputs"
            raise StopError(f"{what}, [gate] min-cosine asks for {least:g}")
        self.figures["score"] = found["value"]
        self.figures["float_score"] = found["against"]["reference"]
        self.figures["drop_high"] = max(0.0, -found["against"]["low"])

    def _drop(self, found: Mapping[str, Any]) -> None:
        """The drop by this data; stop where its whole interval is beyond the limit."""
        against, limit = found["against"], self._asked.limits.max_drop
        if not math.isfinite(against["change"]):
            raise StopError("its score is not a number", "max_drop")
        self.figures["drop"] = max(0.0, -against["change"])
        if limit is not None and against["high"] < -limit:
            self.beyond["max_drop"] = self.figures["drop"] - limit
            raise StopError(f"{self._words('max_drop')} on {against['items']} items", "max_drop")

    def _score(self, table: Any) -> dict[str, Any]:
        run = Run(tuned_on(self._run.config, table), self.shelf, stages=dict(self._run.stages))
        dense = float_engine(run)
        scoring.score(run, dense)
        made = engine(run, self._asked.target)
        if made.name == dense.name:  # float itself, by another name
            found = run.stages[f"score/{dense.name}"].results
            value = found["value"]
            same = {"reference": value, "change": 0.0, "low": 0.0, "high": 0.0}
            return {**found, "against": {**same, "items": found["samples"]}}
        return scoring.score(run, made, against=dense).results

    def _loss(self) -> float:
        """The loss of the outputs on samples that nothing is fitted to, the worst graph's."""
        run, found = self._run, list[float]()
        for graph in run.graphs:
            feeds = calibration_feeds(run, graph).held_out
            loss = Loss(logit_names(run, graph), mask_name(run, graph))
            sides = [
                _outputs(run, stage, graph, feeds, loss)
                for stage in (float_engine(run), engine(run, self._target))
            ]
            found.append(loss(sides[0], sides[1], feeds))
        return max(found)

    @property
    def _target(self) -> str:
        return self._asked.target

    def _timed_short(self) -> None:
        """A first look at the clock: stop where even the fast end of each interval is too slow."""
        if not self._asked.limits.fast:
            return
        rows = self._times(LOOK)
        limits = self._asked.limits
        best = {
            "min_speedup": min(row["speedup_high"] for row in rows),
            "max_latency_ms": slowest(rows, "low_ms"),
        }
        self._record(rows)
        for name, value in best.items():
            figure = {"min_speedup": "speedup", "max_latency_ms": "latency_ms"}[name]
            beyond = violations(limits, {figure: value}).get(name, 0.0)
            if beyond > 0:
                self.beyond[name] = beyond
                raise StopError(says(name, value, limits.asked[name]), name)

    def _timed(self) -> None:
        self._record(self._times(RECORD))

    def _record(self, rows: list[dict[str, Any]]) -> None:
        self.shapes = tuple(rows)
        self.figures["latency_ms"] = slowest(rows, "median_ms")
        self.figures["speedup"] = min(row["speedup"] for row in rows)
        self.figures["speedup_low"] = min(row["speedup_low"] for row in rows)

    def _times(self, seconds: float) -> list[dict[str, Any]]:
        run = self._run
        plain = Run(self._asked.base(), self.shelf.another())
        return times(plain, run, self._asked.target, self._clock, seconds)

    def _remembered(self) -> None:
        made = engine(self._run, self._target)
        with self._clock.timing():
            stage = checks.footprint(self._run, made, self._target)
        self.figures["memory_mb"] = stage.results["peak_bytes"] / 1e6


def _share(run: Run, made: Stage, dense: Stage) -> float:
    return run.workspace.size(made.name) / run.workspace.size(dense.name)


def _outputs(
    run: Run, stage: Stage, graph: str, feeds: Sequence[Feed], loss: Loss
) -> list[dict[str, Any]]:
    backend = registry.find("backends", stage.results["backend"])()
    with backend.runner(run.folder(stage.name, graph)) as call:
        return [loss.kept(call(feed)) for feed in feeds]


#: What no other point would be spared: a full disk, a folder that cannot be written.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def hopeless(error: Error) -> bool:
    """Whether an error is not the point's: something is not here, or nothing can be written."""
    cause = error.__cause__
    full = isinstance(cause, OSError) and cause.errno in FATAL
    return full or isinstance(error, MissingError)


def carry_out(asked: Asked, clock: Clock | None = None) -> Result:
    """A trial from begin to end: an error of a stage is a result, not a failure of the search.

    Raises:
        Error: no other point would be spared it.
    """
    started, trial, stopped, sure = time.perf_counter(), None, None, ()
    beyond: dict[str, float] = {}
    try:
        trial = Trial(asked, clock or Clock())
        trial()
    except StopError as stop:
        stopped, sure = str(stop), tuple(filter(None, [stop.sure]))
    except Error as error:
        if hopeless(error):
            raise
        stopped = f"cannot be made: {error}"
    if trial is not None:
        beyond = dict(trial.beyond)
    if stopped is not None and not any(value > 0 for value in beyond.values()):
        beyond["made"] = 1.0
    return Result(
        settings=asked.settings,
        figures=trial.figures if trial else {},
        beyond=beyond,
        sure=sure,
        stopped=stopped,
        keys=dict(trial.shelf.keys) if trial else {},
        shapes=trial.shapes if trial else (),
        seconds=round(time.perf_counter() - started, 2),
        host=socket.gethostname(),
        load=os.getloadavg()[0],
    )
