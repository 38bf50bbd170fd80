"""`llmdeploy diff A B`: what changed between two releases, or between two stages or ONNX files.

Releases are compared by their reports and ranges, graphs by operators, weights and tensors.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from .. import ConfigError
from ..deploy.misfit import misfit
from .config import Config
from .report import Report
from .run import Run
from .workspace import Workspace

REPORT = "report.json"


class Change(BaseModel):
    """One thing that is not the same: where, what it was, what it is, and their ratio."""

    model_config = ConfigDict(frozen=True)

    part: str
    name: str
    before: float | int | str | bool | None
    after: float | int | str | bool | None
    ratio: float | None = None


def diff(before: Path, after: Path, workspace: Path | None = None) -> list[Change]:
    """Every difference between two workspaces, two report.json files, or two graphs, in order.

    A graph is an ONNX file, or a stage's name in `workspace`, as `optimize` or
    `engine/onnxruntime`.

    Raises:
        ConfigError: one of them has no report, and they are not two graphs.
    """
    one, two = (_stage(path, workspace) for path in (before, after))
    if one and two:
        return _graphs(one, two, workspace)
    return _differences(dict(facts(before)), dict(facts(after)))


def _stage(path: Path, workspace: Path | None) -> Path | None:
    """The folder or file of a graph, None for what is a release."""
    if path.suffix == ".json" or (path / REPORT).is_file():
        return None
    if workspace and not path.exists() and (workspace / path).exists():
        return workspace / path
    return path if path.exists() else None


def _graphs(before: Path, after: Path, workspace: Path | None) -> list[Change]:
    from . import comparing

    run = _run(before, after, workspace)
    found: list[Change] = []
    for name, one, two in comparing.pairs(before, after):
        changes = _differences(dict(comparing.facts(one)), dict(comparing.facts(two)))
        found += [change.model_copy(update={"name": _of(name, change.name)}) for change in changes]
        where = comparing.parting(one, two, run, _graph_name(name, before, workspace))
        found += [
            Change(part="first to part", name=_of(name, key), before=None, after=value)
            for key, value in where.items()
            if value is not None
        ]
    return found


def _of(graph: str, name: str) -> str:
    return f"{graph}:{name}" if graph else name


def _graph_name(name: str, before: Path, workspace: Path | None) -> str:
    """A graph's name among those of the export; a path may name it too, as `optimize/decoder`."""
    if name or workspace is None:
        return name
    folder = before if before.is_dir() else before.parent
    return folder.name if (workspace / "export" / folder.name).is_dir() else ""


def _run(before: Path, after: Path, workspace: Path | None) -> Run | None:
    """The run whose workspace both are of, with the feeds that it gives."""
    if workspace is None or not (workspace / "export" / "io.json").is_file():
        return None
    inside = all(path.resolve().is_relative_to(workspace.resolve()) for path in (before, after))
    return Run(Config(), Workspace(workspace)) if inside else None


def _differences(one: dict[Any, Any], two: dict[Any, Any]) -> list[Change]:
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
    report = read_report(path)
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
    for cost in report.footprints:
        yield ("peak memory", cost.name), cost.peak_bytes
        yield ("cold start ms", cost.name), round((cost.open_ms or 0) + (cost.first_ms or 0), 2)
    for gate in report.gates:
        yield ("gate", gate.name), gate.status


def _ranges(path: Path) -> Iterator[tuple[tuple[str, str], Any]]:
    """The range of each activation, of every graph of a workspace."""
    for file in sorted(path.glob("calibrate/**/ranges.json")):
        graph = file.parent.name if file.parent.name != "calibrate" else ""
        found = json.loads(file.read_text(encoding="utf-8"))
        ranges: Mapping[str, Any] = found.get("ranges", {})
        for name, each in ranges.items():
            yield ("range", _of(graph, name)), each["amax"]
            yield ("smoothing", _of(graph, name)), each["strength"]


def read_report(path: Path) -> Report:
    """The report of a workspace, or in a report.json.

    Raises:
        ConfigError: there is none, or it is not one.
    """
    file = path / REPORT if path.is_dir() else path
    mend = "give a workspace in which `llmdeploy verify` ran, or its report.json"
    try:
        return Report.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError("no report there", where=path, mend=mend) from error
    except ValidationError as error:
        what = f"not a report: {misfit(error)}"
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
