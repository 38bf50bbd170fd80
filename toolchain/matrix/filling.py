"""Fills a matrix: what models and precisions share first, then every cell, each job on its own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ... import Error
from .. import jobs
from ..workspace import Workspace
from .cell import Order, make
from .outcome import Outcome
from .plan import Cell
from .table import Done, Table, write

#: Folders of what cells share, beside the cells'; no precision has such a name.
SHARED = ".shared"
Told = Callable[[str, jobs.Ended], None]


@dataclass(frozen=True)
class Asked:
    """What the command line says of every cell."""

    place: jobs.Place = field(default_factory=jobs.Place)
    over: Mapping[str, Any] = field(default_factory=dict[str, Any])
    force: bool = False
    mlflow: str | None = None


def fill(cells: Sequence[Cell], root: Path, asked: Asked, told: Told) -> Table:
    """Release every cell into its folder below `root`, and write the one report after each.

    What was made before is taken as it is, so a run that was ended goes on. A cell that fails, or
    whose worker dies twice, leaves the others alone. `told` hears of each job that ended.

    Raises:
        MissingError: Ray is asked for and is not installed.
        Error: another run holds the folder, or it cannot be written.
    """
    root = root.absolute()
    with Workspace(root).locked():
        lost: dict[Path, Error] = {}
        for orders in (_models(cells, root, asked), _precisions(cells, root, asked)):
            fit = [order for order in orders if not _of(lost, order.seed)]
            for ended in jobs.run(make, fit, asked.place):
                told(fit[ended.index].name, ended)
                if ended.error:
                    lost[fit[ended.index].workspace] = _error(ended.error)
        return _cells(cells, root, asked, told, lost)


def _cells(
    cells: Sequence[Cell], root: Path, asked: Asked, told: Told, lost: Mapping[Path, Error]
) -> Table:
    orders = [_order(cell, root / cell.folder, "release", root, cells, asked) for cell in cells]
    table = Table(tuple(Done(cell) for cell in cells), asked.place)
    for index, order in enumerate(orders):
        why = _of(lost, order.seed) or _of(lost, _model_folder(root, cells[index]))
        if why:
            table = table.with_(index, replace(Done(cells[index]), outcome=_failed(why)))
    fit = [index for index, done in enumerate(table.cells) if done.outcome.verdict == "pending"]
    write(table, root)
    for ended in jobs.run(make, [orders[index] for index in fit], asked.place):
        index = fit[ended.index]
        told(orders[index].name, ended)
        outcome = ended.result or _failed(_error(ended.error))
        table = table.with_(index, Done(cells[index], outcome, ended.seconds, ended.tries))
        write(table, root)
    return table


def _models(cells: Sequence[Cell], root: Path, asked: Asked) -> list[Order]:
    """Export, passes and float engine, once a model that has several cells."""
    return [
        _order(_lossy(several), _model_folder(root, several[0]), "model", root, cells, asked)
        for several in _grouped(cells, lambda cell: (cell.model,))
    ]


def _precisions(cells: Sequence[Cell], root: Path, asked: Asked) -> list[Order]:
    """Calibration and the graph in that precision, once for several targets."""
    return [
        _order(several[0], _graph_folder(root, several[0]), "precision", root, cells, asked)
        for several in _grouped(cells, lambda cell: (cell.model, cell.precision))
        if several[0].precision != "fp32"
    ]


def _grouped(cells: Iterable[Cell], key: Callable[[Cell], tuple[str, ...]]) -> list[list[Cell]]:
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return [group for group in groups.values() if len(group) > 1]


def _lossy(cells: Sequence[Cell]) -> Cell:
    """The cell whose precision has a float engine beside it, on all the backends of the model."""
    first = next((cell for cell in cells if cell.precision != "fp32"), cells[0])
    backends = dict.fromkeys(name for cell in cells for name in cell.backends)
    return replace(first, backends=tuple(backends))


def _order(
    cell: Cell, workspace: Path, upto: Any, root: Path, cells: Sequence[Cell], asked: Asked
) -> Order:
    """A job of a cell, seeded by the nearest of what it shares with others."""
    graph, model = _graph_folder(root, cell), _model_folder(root, cell)
    alike = [each for each in cells if each.model == cell.model]
    exact = [each for each in alike if each.precision == cell.precision]
    seeds = {
        "model": None,
        "precision": model,
        "release": graph if len(exact) > 1 and cell.precision != "fp32" else model,
    }
    return Order(
        name=workspace.relative_to(root).as_posix(),
        config=cell.config,
        workspace=workspace,
        upto=upto,
        precision=cell.precision,
        backends=cell.backends,
        seed=seeds[upto] if len(alike) > 1 else None,
        over=asked.over,
        force=asked.force,
        mlflow=asked.mlflow,
    )


def _model_folder(root: Path, cell: Cell) -> Path:
    return root / cell.model / SHARED


def _graph_folder(root: Path, cell: Cell) -> Path:
    return root / cell.model / cell.precision / SHARED


def _of(lost: Mapping[Path, Error], folder: Path | None) -> Error | None:
    return None if folder is None else lost.get(folder)


def _failed(error: Error) -> Outcome:
    return Outcome("error", error.exit_code, str(error))


def _error(error: Exception | None) -> Error:
    if isinstance(error, Error):
        return error
    return Error(f"{type(error).__name__}: {error}")
