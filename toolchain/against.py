"""The latencies of this run beside those of the release it replaces, by its report.json."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import ConfigError
from .machine import machine
from .report import Latency, Report
from .run import Run

REPORT = "report.json"
Key = tuple[str, int, int]
#: Lowest and highest median that the measurement allows, in milliseconds.
Bounds = tuple[float, float]


def slowdown(run: Run) -> tuple[float | None, str]:
    """How much slower than the last release, as a share of its time, at the worst shape; or why
    that is not known.

    It is the least that both intervals of the medians admit: a difference within noise is none.

    Raises:
        ConfigError: the last release's report cannot be read.
    """
    if not run.config.gate.last_release:
        return None, "no last-release is named"
    before, here = last(run), machine()
    if (before.environment.cpu, before.environment.cores) != (here.cpu, here.cores):
        return None, f"the last release was timed on another machine: {before.environment.cpu}"
    stage = run.stages.get("latency/onnxruntime")
    ours = timed(stage.results["timings"] if stage else ())
    theirs = reported(before.latency)
    shared = [key for key in ours if key in theirs]
    if not shared:
        return None, "no shape was timed in both releases"
    return max(max(0.0, ours[key][0] / theirs[key][1] - 1) for key in shared), ""


def last(run: Run) -> Report:
    """The report of the last release.

    Raises:
        ConfigError: it cannot be read, or this run writes over it: of a release that was too slow
            the next one would be fast enough.
    """
    path = run.config.path(run.config.gate.last_release)
    file = path / REPORT if path.is_dir() else path
    if file.resolve() == (run.workspace.root / REPORT).resolve():
        raise ConfigError(
            "the last release's report is the one that this run writes",
            where=f"[gate] last-release: {file}",
            mend="keep a copy of a release's report.json elsewhere, and name that",
        )
    return _read(file)


def _read(file: Path) -> Report:
    try:
        return Report.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        mend = "name the report.json that `llmdeploy verify` wrote, of this version"
        where = f"[gate] last-release: {file}"
        what = "the last release's report cannot be read"
        raise ConfigError(what, where=where, mend=mend) from error


def timed(timings: Iterable[Mapping[str, Any]]) -> dict[Key, Bounds]:
    """What ships, of a latency stage: the last engine timed of every phase and shape."""
    found: dict[Key, Bounds] = {}
    for each in timings:
        sizes = [int(size) for size in str(each["shape"]).split("x")]
        key = (str(each["phase"]), sizes[0], sizes[1] if len(sizes) > 1 else 1)
        found[key] = (each["low_ms"], each["high_ms"])
    return found


def reported(lines: Iterable[Latency]) -> dict[Key, Bounds]:
    """The same of a report."""
    found: dict[Key, Bounds] = {}
    for each in lines:
        if each.low_ms is not None and each.high_ms is not None:
            phase = each.name.partition(" ")[2]
            found[(phase, each.batch, each.sequence)] = (each.low_ms, each.high_ms)
    return found
