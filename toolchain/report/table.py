"""The table a release ends with on a terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .proof import Gate
from .record import Report
from .summary import COLUMNS, cells, excused, limit, mend_of, value

_COLOURS = {"pass": "green", "fail": "red", "incomplete": "yellow", "not-executed": "yellow"}


def table(report: Report) -> Group:
    """Stages, gates and verdict, ready for a rich console."""
    parts = [_stages(report)]
    if report.gates:
        parts.append(_gates(report))
    verdict = Text(f"verdict: {report.verdict}", style=f"bold {_COLOURS[report.verdict]}")
    return Group(*parts, verdict)


def _stages(report: Report) -> Table:
    grid = _grid(COLUMNS[0])
    for name in COLUMNS[1:]:
        grid.add_column(name, justify="right", no_wrap=True)
    for stage in report.stages:
        name, *rest = cells(stage)
        fresh = " (fresh)" if stage.fresh else ""
        grid.add_row(Text(name).append(fresh, style="dim"), *rest)
    return grid


def _gates(report: Report) -> Table:
    grid = _grid("gate")
    for name in ("limit", "value"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("status")
    for gate in report.gates:
        grid.add_row(Text(gate.name), Text(limit(gate)), Text(value(gate.value)), _status(gate))
    return grid


def _grid(first: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column(first, no_wrap=True)
    return grid


def _status(gate: Gate) -> Text:
    text = Text(gate.status, style=_COLOURS[gate.status])
    text.append(", allowed" if excused(gate) else "")
    why = ", ".join(part for part in (gate.reason, mend_of(gate)) if part)
    return text.append(f": {why}" if why and gate.status != "pass" else "", style="default")
