"""The pass `recover` carried out: a compressed graph trained, checked, and put back where worse."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ... import ConfigError, PassError
from ...passes import load
from ...passes.recover import Recover
from ...passes.sites import find
from ..compress.stretch import Arrays, opened
from ..compress.subject import Subject
from ..narrowing import Narrowing
from ..replay import opened as replayed
from .distance import Distance, comparable
from .program import Program
from .training import Feed, Recipe, Training

#: Held-out batches that a training is steered by, and as many others that it is judged by.
BATCHES = 12
#: How far the two ways to run a graph may part, of the output's greatest number.
NEAR = 1e-3


def recover(
    dense: Subject,
    model: Path,
    asked: Recover,
    folder: Path | None = None,
    narrow: Narrowing | None = None,
) -> tuple[ir.Model, dict[str, Any]]:
    """The model at `model` with weights nearer to the dense one's outputs, and what is told.

    `folder` keeps the state of a training that is killed; the next one begins there. `narrow` is
    what the model takes and gives less than the dense one.

    Raises:
        ConfigError: no samples, or nothing to train.
        PassError: torch does not compute what ONNX Runtime does, or an operator is not known.
    """
    if not dense.fit:
        raise ConfigError("recover needs samples", where="[calibration] samples", mend="name some")
    less = narrow or Narrowing()
    program = Program(load(model), "cuda" if torch.cuda.is_available() else "cpu", less.feed)
    if not program.weights:
        raise ConfigError("the model has no weight to train", where=model)
    teacher_model = load(dense.model)
    distance = _distance(dense, teacher_model, program, less)
    _same(program, replayed(model)(less.feed(dense.fit[0])), dense.fit[0], distance)
    recipe = Recipe(asked.minutes * 60, asked.steps, asked.learning_rate, asked.seed)
    with (
        tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside,
        opened(teacher_model, dense.fit[0], distance.names) as call,
    ):

        def teacher(feed: Feed) -> Mapping[str, NDArray[Any]]:
            return less.outputs(call(feed))

        def look_on(feeds: Sequence[Feed]) -> Callable[[], float]:
            wanted = [_only(teacher(feed), distance) for feed in feeds]
            return lambda: dense.loss(
                wanted, [_outputs(program, feed, distance) for feed in feeds], feeds
            )

        steering, judging = map(look_on, parted(dense.held_out))
        before = judging()
        training = Training(program, teacher, distance, steering)
        state = training.run(dense.fit, recipe, folder or Path(aside))
        after = judging()
    better = after < before
    told = {
        "steps": state.step, "seconds": round(state.seconds, 1), "loss_before": before,
        "loss_after": min(after, before), "rolled_back": not better, "resumed": state.resumed,
        "weights": len(program.weights), "device": program.device, "inner": len(distance.inner),
    }  # fmt: skip
    return (program.restored() if better else load(model)), {"recovered": told}


def parted(held_out: Sequence[Feed]) -> tuple[Sequence[Feed], Sequence[Feed]]:
    """Those that choose the best weights, and those that judge them, which no step looked at.

    One batch has to do both.
    """
    judging = held_out[1 : 2 * BATCHES : 2]
    return held_out[: 2 * BATCHES : 2], judging or held_out


def _distance(dense: Subject, teacher: ir.Model, program: Program, less: Narrowing) -> Distance:
    """What is compared: the outputs that count, and layers' inputs that both models have."""
    known = {v.name for node in program.model.graph for v in node.outputs}
    sites = [site.tensor for site in find(teacher) if site.tensor in known]
    names = [output.name or "" for output in program.model.graph.outputs]
    feed = dense.fit[0]
    with torch.no_grad(), opened(teacher, feed, [*names, *sites]) as call:
        theirs, ours = less.outputs(call(feed)), program(feed, [*names, *sites])
    outputs = tuple(dense.loss.kept({name: theirs[name] for name in names}))
    same = comparable([*outputs, *sites], ours, theirs)
    if not set(outputs) <= set(same):
        raise PassError("the models' outputs have other shapes", mend="recover before that pass")
    return Distance(outputs, dense.logits, tuple(s for s in sites if s in same), dense.mask)


def _same(program: Program, theirs: Mapping[str, Any], feed: Feed, distance: Distance) -> None:
    """Refuse to train what torch computes otherwise than ONNX Runtime."""
    ours = _outputs(program, feed, distance)
    for name in distance.outputs:
        wide = theirs[name].astype(np.float64)
        error = float(np.abs(ours[name] - wide).max() / (np.abs(wide).max() or 1.0))
        if not error <= NEAR:
            raise PassError(
                f"torch gives {name} otherwise than ONNX Runtime: {error:.1e}",
                mend='leave `use = "recover"` out, and report it',
            )


def _outputs(program: Program, feed: Any, distance: Distance) -> Arrays:
    with torch.no_grad():
        found = program(feed, distance.outputs)
    return {name: each.cpu().numpy() for name, each in found.items()}


def _only(arrays: Mapping[str, NDArray[Any]], distance: Distance) -> Arrays:
    return {name: arrays[name] for name in distance.outputs}
