"""The pass `prune` fitted to a model: units by what samples say, widths by what a clock says."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ... import ConfigError, PassError
from ...calibration import one_thread
from ...calibration.removal import Order
from ...deploy.backend import Backend
from ...passes import load
from ...passes.coupling import Group, Left, groups
from ...passes.infer import infer
from ...passes.prune import Prune
from ...passes.remove import Remove, droppable
from ...passes.sites import by_name
from ..narrowing import Narrowing
from .cuts import narrowing_of
from .depth import without
from .known import Known, learned
from .levels import counts, share
from .losses import Losses, every, timed
from .subject import Choice, Level, Plan, Subject
from .table import Clock, seconds
from .trial import Trial
from .walk import Walk
from .widths import Ask, widths

Watch = Callable[[str], object]
#: Fewer rows than this for an input, and a correction says more of the samples than of the model.
ROWS_AN_INPUT = 4


@dataclass(frozen=True)
class Pruned:
    """A pruned model, and what stage.json shows of it."""

    model: ir.Model
    results: dict[str, Any]
    narrowing: Narrowing


def prune(
    subject: Subject,
    asked: Prune,
    backend: Backend,
    watch: Watch = lambda _: None,
    scratch: Path | None = None,
) -> Pruned:
    """Remove units as asked, each layer corrected for all that was changed before it.

    Changed weights lie in `scratch` until the model is saved, in memory where there is none.

    Raises:
        ConfigError: no samples, or nothing in the model can be removed, or not so much of it.
        PassError: it costs more than `max_drop`.
    """
    if not subject.fit:
        raise ConfigError("prune needs samples", where="[calibration] samples", mend="name some")
    model = load(subject.model)
    by_name(model)
    infer(model)
    found, left = groups(model)
    chosen = _wanted(found, asked)
    if not chosen:
        raise ConfigError("nothing of the model can be pruned", mend=_why(left))
    with one_thread(), tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside:
        watch("what each layer sees")
        known = learned(subject, model, chosen, asked, Path(aside))
        choices = [_choice(model, each, known.orders[each.consumer], asked) for each in chosen]
        if asked.uniform:
            plan, told = _shares(subject, asked, model, choices, known)
        else:
            plan, told = _plan(subject, asked, backend, choices, known, watch)
        watch("correcting the layers")
        pruned = _carried_out(subject, asked, chosen, plan, scratch)
    notes = [*_notes(known, chosen), *_untouched(asked, chosen, plan)]
    layers = [_row(each, plan) for each in chosen]
    alone = [{"node": each.consumer, "reason": each.reason} for each in left]
    results = {**told, "layers": layers, "left_alone": alone, "notes": notes}
    return Pruned(pruned, results, narrowing_of(chosen, plan))


def _wanted(found: Sequence[Group], asked: Prune) -> list[Group]:
    """The groups that may lose units."""
    none = {"neurons": asked.neurons == 0, "heads": asked.heads == 0}
    if asked.uniform:
        whole = asked.layers is not None
        none = {"neurons": not (asked.neurons or whole), "heads": not (asked.heads or whole)}
    return [each for each in found if not none[each.kind]]


def _why(left: Sequence[Left]) -> str:
    return f"{left[0].consumer}: {left[0].reason}" if left else "it has no weight MatMul"


def _choice(model: ir.Model, group: Group, found: Order, asked: Prune) -> Choice:
    least = 0 if droppable(model, group) and not asked.uniform else 1
    levels = [Level(n, found.kept(n)) for n in counts(group, asked.multiple, least)]
    return Choice(group, tuple(levels))


def _plan(
    subject: Subject,
    asked: Prune,
    backend: Backend,
    choices: Sequence[Choice],
    known: Known,
    watch: Watch,
) -> tuple[Plan, dict[str, Any]]:
    shape = f"{asked.batch}x{asked.sequence}"  # ready feeds have the shapes they have
    rows = [name for name in subject.timed if name.startswith(f"{asked.batch}x")]  # fewer tokens
    feed = subject.timed[shape if shape in subject.timed else [*rows, *subject.timed][0]]
    outputs = known.weights.outputs
    clock = Clock(subject.model, backend, feed, [each.group for each in choices])
    try:
        with Trial(subject, list(outputs)) as trial:
            losses = Losses(trial, known.seen, known.weights)
            watch("what each width costs")
            step = every(len(choices), len(choices[0].levels), timed(trial), asked.minutes * 60)
            measured = [
                replace(each, losses=losses.of(each, known.orders[each.group.consumer], step))
                for each in choices
            ]
            watch("how long each width takes")
            table, dense = seconds(measured, outputs, clock)
            measured = [replace(each, seconds=table[each.group.consumer]) for each in measured]
            watch("the widths that fit")
            ask = Ask(asked.speedup, asked.max_drop)
            found = widths(measured, dense, ask, lambda w: losses.joint(measured, w), clock)
    finally:
        clock.close()
    told = {"table": [_levels(each) for each in measured], "dense_seconds": dense}
    return found.plan, {**told, "latency_ratio": found.ratio, "planned_loss": found.loss}


def _shares(
    subject: Subject,
    asked: Prune,
    model: ir.Model,
    choices: Sequence[Choice],
    known: Known,
) -> tuple[Plan, dict[str, Any]]:
    """The plan where shares are asked for: of every layer, and of layers as a whole."""
    groups = [each.group for each in choices]
    plan = {each.consumer: known.orders[each.consumer].kept(share(each, asked)) for each in groups}
    if asked.layers is None:
        return plan, {}
    gone, losses = without(subject, model, groups, known, asked.layers, asked.minutes)
    return {**plan, **gone}, {"layers_gone": len(losses), "layer_losses": losses}


def _carried_out(
    subject: Subject, asked: Prune, chosen: Sequence[Group], plan: Plan, scratch: Path | None
) -> ir.Model:
    real = {each.consumer: plan[each.consumer] for each in chosen if _less(each, plan)}
    if asked.correct:
        with tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside:
            return Walk(subject, chosen, Path(aside), scratch).prune(real)
    model = load(subject.model)
    return Remove(real)(model).model


def _less(group: Group, plan: Plan) -> bool:
    return len(plan[group.consumer]) < group.units


def _notes(known: Known, chosen: Sequence[Group]) -> list[str]:
    thin = [each for each in chosen if known.rows[each.consumer] < ROWS_AN_INPUT * each.width]
    if not thin:
        return []
    row = known.rows[thin[0].consumer]
    what = f"{row} tokens for {max(each.width for each in thin)} inputs of a layer"
    return [f"{what}: corrections are drawn to the old weights; give more samples"]


def _untouched(asked: Prune, chosen: Sequence[Group], plan: Plan) -> list[str]:
    """Shares that are no whole number of units: so few that none can go."""
    said: list[str] = []
    for kind, part in (("neurons", asked.neurons), ("heads", asked.heads)):
        mine = [each for each in chosen if each.kind == kind]
        if part and mine and not any(_less(each, plan) for each in mine):
            units, width = mine[0].units, mine[0].width // mine[0].units
            said.append(
                f"{kind} = {part:g} takes none: a layer has {units} units of {width} channels"
                f" that go as a whole, and widths are multiples of {asked.multiple}"
            )
    return said


def _row(group: Group, plan: Plan) -> dict[str, Any]:
    return {
        "node": group.consumer,
        "kind": group.kind,
        "units": group.units,
        "kept": len(plan[group.consumer]),
        "width": group.width,
    }


def _levels(choice: Choice) -> dict[str, Any]:
    return {
        "node": choice.group.consumer,
        "kept": [level.units for level in choice.levels],
        "loss": [round(float(each), 8) for each in choice.losses],
        "seconds": [round(float(each), 8) for each in choice.seconds],
    }


def held(loss: float, most: float, where: Path) -> None:
    """Refuse a model that costs more than it may.

    Raises:
        PassError: the loss is above `max_drop`.
    """
    if loss > most:
        raise PassError(
            f"compression costs {loss:.4f} of the outputs, max-drop is {most:g}",
            where=where,
            mend="ask for less, give more samples, or raise max-drop",
        )
