"""report.md: the release as a summary of a CI job."""

import re
from collections.abc import Iterable, Sequence

from . import figures
from .proof import Gate
from .record import Report
from .summary import COLUMNS, cells, limit, mend_of, value

_ICONS = {"pass": "✅", "fail": "❌", "incomplete": "⚠️", "not-executed": "⚪"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>&@$:-])")


def markdown(report: Report) -> str:
    """Verdict, gates and stages, in GitHub's Markdown; nothing of a name is taken as markup."""
    model = report.model
    head = f"## {_ICONS[report.verdict]} {_escape(model.checkpoint)}: {report.verdict}"
    size = f"{figures.count(model.parameters)} parameters"
    line = f"{_escape(model.architecture)}, {_escape(model.task)}, {size}"
    tables = (_gates(report), _stages(report), _bundles(report))
    return "\n\n".join((head, line, *(table for table in tables if table))) + "\n"


def _gates(report: Report) -> str:
    return _table(("gate", "limit", "value", "why"), [_gate(gate) for gate in report.gates])


def _gate(gate: Gate) -> tuple[str, ...]:
    name = f"{_ICONS[gate.status]} {_escape(gate.name)}"
    why = " ".join(_escape(part) for part in (gate.reason, mend_of(gate)) if part)
    return name, _escape(limit(gate)), _escape(value(gate.value)), why


def _stages(report: Report) -> str:
    rows = [tuple(_escape(cell) for cell in cells(stage)) for stage in report.stages]
    return _table(COLUMNS, rows)


def _bundles(report: Report) -> str:
    rows = [
        (_escape(bundle.kind), _escape(bundle.path), figures.size(bundle.bytes), bundle.sha256[:12])
        for bundle in report.bundles
    ]
    return _table(("bundle", "path", "size", "sha256"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"|{'---|' * len(header)}"
    return "\n".join((f"| {' | '.join(header)} |", rule, *lines)) if lines else ""


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
