"""The jobs of a matrix: what cells share is made once, then each is a release in its own folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import release, report, stages, verbs
from ..run import Run
from ..tracking import track
from ..workspace import Workspace
from .outcome import Outcome, measured
from .seeding import adopt


@dataclass(frozen=True)
class Order:
    """One job, as it travels to a process or a node.

    `upto` is how far it goes: the float graph of a `model`, the graph of a `precision`, or the
    whole `release`. `seed` is the workspace whose stages it takes over first. `over` is what the
    command line says over the configuration.
    """

    name: str
    config: Path
    workspace: Path
    upto: Literal["model", "precision", "release"]
    precision: str
    backends: tuple[str, ...]
    seed: Path | None = None
    over: Mapping[str, Any] = field(default_factory=dict[str, Any])
    force: bool = False
    mlflow: str | None = None


def make(order: Order) -> Outcome | None:
    """Do a job; a release gives what was measured, what is shared gives nothing.

    Raises:
        Error: a stage failed.
    """
    run = verbs.given(
        order.config,
        order.workspace,
        order.force,
        True,
        precision=order.precision,
        backends=list(order.backends),
        **order.over,
    )
    with run.workspace.locked():
        if order.seed is not None:
            adopt(run.workspace, Workspace(order.seed))
        if order.upto == "release":
            return _release(run, order)
        _shared(run, order.upto)
    return None


def _shared(run: Run, upto: str) -> None:
    stages.slim(run)
    if upto == "model" and "onnxruntime" in run.config.build.backends:
        stages.float_engine(run)
    if upto == "precision":
        stages.neutral(run)


def _release(run: Run, order: Order) -> Outcome:
    made = release.release(run)
    if order.mlflow is not None:
        track(order.mlflow, run, made)
    name = next(name for name in report.FILES if name.endswith(".html"))
    return measured(made, page=f"{order.name}/{name}", made=_made(run))


def _made(run: Run) -> tuple[int, int]:
    """How many stages were made now, and of how many."""
    return sum(not stage.fresh for stage in run.stages.values()), len(run.stages)
