"""The one report of a matrix: matrix.json for machines, matrix.html for people."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import Error, __version__
from ..jobs import Place
from ..machine import machine
from ..workspace import write_json, write_text
from .outcome import Outcome, Verdict
from .plan import Cell

JSON, HTML = "matrix.json", "matrix.html"
SCHEMA_VERSION = 1
#: The worst first: what could not be made, then what is not fit to ship.
_CODES = (3, 4, 2, 1)
_VERDICTS: tuple[Verdict, ...] = ("error", "pending", "fail", "incomplete", "pass")


@dataclass(frozen=True)
class Done:
    """A cell and how it ended; seconds of its last try, None before it ended."""

    cell: Cell
    outcome: Outcome = field(default_factory=Outcome)
    seconds: float | None = None
    tries: int = 0


@dataclass(frozen=True)
class Table:
    """All cells in the order of the file, and where their jobs ran."""

    cells: tuple[Done, ...]
    place: Place = field(default_factory=Place)

    def with_(self, index: int, done: Done) -> "Table":
        """The same with another end of one cell."""
        return replace(self, cells=(*self.cells[:index], done, *self.cells[index + 1 :]))

    @property
    def verdict(self) -> Verdict:
        """`error` and `pending` before `fail` and `incomplete`; `pass` where every cell passes."""
        found = {done.outcome.verdict for done in self.cells}
        return next(verdict for verdict in _VERDICTS if verdict in found)

    @property
    def exit_code(self) -> int:
        """The worst of the cells': 3 or 4 before 2 before 1; 0 where all are fit to ship."""
        found = {done.outcome.exit_code for done in self.cells}
        return next((code for code in _CODES if code in found), 0)

    @property
    def shared_machine(self) -> bool:
        """Whether jobs ran side by side, which latencies and seconds show."""
        return self.place.address is not None or self.place.processes > 1

    def plain(self) -> dict[str, Any]:
        """The whole as JSON values."""
        place = self.place
        return {
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "llmdeploy", "version": __version__},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "verdict": self.verdict,
            "jobs": place.processes if place.address is None else f"ray {place.address}".strip(),
            "side_by_side": self.shared_machine,
            "cells": [_plain(done) for done in self.cells],
            "environment": machine().model_dump(),
        }


def _plain(done: Done) -> dict[str, Any]:
    cell = done.cell
    return {
        "model": cell.model,
        "precision": cell.precision,
        "target": cell.target,
        "workspace": cell.folder.as_posix(),
        **asdict(done.outcome),
        "seconds": done.seconds,
        "tries": done.tries,
    }


def write(table: Table, root: Path) -> tuple[Path, ...]:
    """Write both forms into `root`, each replaced in one step.

    Raises:
        Error: the folder cannot be written.
    """
    from .page import page

    plain = json.loads(json.dumps(table.plain(), default=str))
    try:
        write_json(root / JSON, plain)
        write_text(root / HTML, page(plain))
    except OSError as error:
        mend = "free space or mend the permissions"
        raise Error(f"cannot write: {error.strerror}", where=root, mend=mend) from error
    return root / JSON, root / HTML
