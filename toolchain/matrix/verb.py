"""`llmdeploy release --matrix`: the cells as they end, and the table of all of them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from ... import Error
from ..console import emit, people
from ..jobs import Ended, Place
from ..report import figures
from .filling import Asked, fill
from .plan import read
from .table import HTML, JSON, Table

_HEADS = ("model", "precision", "target", "verdict", "score", "int8 share", "speedup", "seconds")


def release_all(
    matrix: Path,
    workspace: Path,
    jobs: str,
    asked: Mapping[str, Any],
    as_json: bool,
    quiet: bool,
    summary: Path | None = None,
) -> int:
    """Release every cell; the worst of their exit codes: 3, 4, 2, 1, and 0 where all pass.

    Raises:
        ConfigError: the matrix or one of its configurations is wrong.
        MissingError: Ray is asked for and is not installed.
    """
    place, cells = Place.of(jobs), read(matrix)
    console = people(quiet)

    def told(name: str, ended: Ended) -> None:
        word = "[red]failed[/]" if ended.error else "[green]done[/]"
        again = f" at try {ended.tries}" if ended.tries > 1 else ""
        console.print(f"{word} {name:<40} {ended.seconds:7.1f} s{again}")

    over = {key: _from_here(value) for key, value in asked["over"].items()}
    given = Asked(place, over, asked["force"], asked["mlflow"])
    table = fill(cells, workspace, given, told)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(markdown(table))
    if as_json:
        emit(table.plain())
    console.print(_grid(table))
    _complain(table)
    if not as_json and not quiet:
        for name in (JSON, HTML):
            people(file=sys.stdout).print(str(workspace / name), markup=False)
    return table.exit_code


def _from_here(value: Any) -> Any:
    """Paths as any process finds them, wherever it runs."""
    if isinstance(value, list):
        return [_from_here(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value.absolute() if isinstance(value, Path) else value


def _complain(table: Table) -> None:
    for done in table.cells:
        where = done.cell.folder.as_posix()
        for why in (*done.outcome.failing, *filter(None, [done.outcome.error])):
            people().print(f"{where}: {why}", markup=False, soft_wrap=True)


def _grid(table: Table) -> Grid:
    grid = Grid(*_HEADS, box=None)
    for row in rows(table):
        grid.add_row(*row)
    return grid


def rows(table: Table) -> list[tuple[str, ...]]:
    """A line a cell, under the heads that people see."""
    return [
        (
            done.cell.model,
            done.cell.precision,
            done.cell.target,
            done.outcome.verdict,
            figures.score(done.outcome.figures["score"]),
            figures.percent(done.outcome.figures["int8 share"]),
            figures.ratio(done.outcome.figures["speedup"]),
            figures.seconds(done.seconds),
        )
        for done in table.cells
    ]


def markdown(table: Table) -> str:
    """The table as the summary of a CI job takes it.

    Raises:
        Error: a name cannot stand in a table; none that `read` gave is such.
    """
    lines = [_HEADS, tuple("---" for _ in _HEADS), *rows(table)]
    if any("|" in cell or "\n" in cell for line in lines for cell in line):
        raise Error("a name with | or a line break is in the matrix")
    head = f"## A matrix of {len(table.cells)} releases: {table.verdict}"
    return "\n".join([head, "", *(f"| {' | '.join(line)} |" for line in lines), ""])
