"""`llmdeploy diff A B`: what changed between two releases, from their reports and ranges."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from .. import ConfigError
from .report import Report

REPORT = "report.json"
RANGES = Path("calibrate", "ranges.json")


class Change(BaseModel):
    """One thing that is not the same: where, what it was, what it is, and their ratio."""

    model_config = ConfigDict(frozen=True)

    part: str
    name: str
    before: float | int | str | bool | None
    after: float | int | str | bool | None
    ratio: float | None = None


def diff(before: Path, after: Path) -> list[Change]:
    """Every difference between two workspaces, or two report.json files, in the report's order.

    Raises:
        ConfigError: one of them has no report.
    """
    one, two = (dict(facts(path)) for path in (before, after))
    keys = dict.fromkeys((*one, *two))
    changes = (_change(key, one.get(key), two.get(key)) for key in keys)
    return [change for change in changes if change.before != change.after]


def _change(key: tuple[str, str], before: Any, after: Any) -> Change:
    ratio = None
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (before, after))
    if numbers and before:
        ratio = after / before
    return Change(part=key[0], name=key[1], before=before, after=after, ratio=ratio)


def facts(path: Path) -> Iterator[tuple[tuple[str, str], Any]]:
    """What of a release is compared: (part, name) and the value."""
    report = _report(path)
    yield ("release", "verdict"), report.verdict
    for key in ("checkpoint", "task", "architecture", "digest", "parameters"):
        yield ("model", key), getattr(report.model, key)
    for package, version in report.environment.packages.items():
        yield ("versions", package), version
    yield ("environment", "cpu"), report.environment.cpu
    for stage in report.stages:
        yield ("size", stage.name), stage.size_bytes
        yield ("digest", stage.name), stage.digest[:12]
    for step in report.passes:
        yield ("nodes after", step.name), step.nodes_after
    yield from _precision(report)
    yield from _proof(report)
    yield from _ranges(path)


def _precision(report: Report) -> Iterator[tuple[tuple[str, str], Any]]:
    if report.calibration:
        yield ("calibration", "samples"), report.calibration.digest[:12]
        yield ("calibration", "method"), report.calibration.method
    if report.quantization:
        yield ("quantization", "int8 share"), report.quantization.int8_share
        for layer in report.quantization.layers:
            yield ("layer", layer.node), "int8" if layer.int8 else "float"


def _proof(report: Report) -> Iterator[tuple[tuple[str, str], Any]]:
    for score in report.scores:
        yield ("score", f"{score.name} {score.metric}"), score.value
    for line in report.latency:
        yield ("latency ms", f"{line.name} {line.batch}x{line.sequence}"), line.median_ms
    for gate in report.gates:
        yield ("gate", gate.name), gate.status


def _ranges(path: Path) -> Iterator[tuple[tuple[str, str], Any]]:
    try:
        found = json.loads((path / RANGES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    tensors: Mapping[str, Any] = found.get("tensors", {}) if isinstance(found, dict) else {}
    for name, tensor in tensors.items():
        yield ("range", name), tensor.get("amax")


def _report(path: Path) -> Report:
    file = path / REPORT if path.is_dir() else path
    mend = "give a workspace in which `llmdeploy verify` ran, or its report.json"
    try:
        return Report.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError("no report there", where=path, mend=mend) from error
    except ValidationError as error:
        what = f"not a report: {error.errors()[0]['msg']}"
        raise ConfigError(what, where=file, mend=mend) from error


def show(changes: list[Change]) -> Table | str:
    """The table for people."""
    if not changes:
        return "nothing changed"
    table = Table(box=None, header_style="bold")
    for name in ("what", "which", "before", "after", "ratio"):
        table.add_column(name, justify="right" if name == "ratio" else "left", overflow="fold")
    for change in changes:
        ratio = f"{change.ratio:.3f}" if change.ratio is not None else ""
        values = (_short(change.before), _short(change.after))
        table.add_row(change.part, change.name, *values, ratio)
    return table


def _short(value: Any) -> str:
    if value is None:
        return "—"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
