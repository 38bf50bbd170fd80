"""Which whole layers go: one after the other, each time the one that costs least at the outputs.

As SLEB does (arXiv 2402.09025); what a layer added is replaced by its mean over the samples.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from ... import ConfigError
from ...passes.coupling import Group
from ...passes.remove import droppable
from .known import Known
from .subject import Plan, Subject
from .trial import Changed, Trial

#: A layer: its attention and the neurons behind it.
Layer = tuple[Group, Group]


def layers_of(model: ir.Model, groups: Sequence[Group]) -> tuple[list[Layer], int]:
    """The layers that can go as a whole, in order, and how many layers there are in all."""
    pairs = [pair for pair in pairwise(groups) if (pair[0].kind, pair[1].kind) == KINDS]
    free = [pair for pair in pairs if all(droppable(model, each) for each in pair)]
    return free, len(pairs)


KINDS = ("heads", "neurons")


def without(
    subject: Subject, model: ir.Model, groups: Sequence[Group], known: Known, share: float,
    minutes: float,
) -> tuple[Plan, list[float]]:  # fmt: skip
    """The plan that leaves out this share of the layers, and the loss after each that went.

    In `minutes` all are tried before each one goes; where time is short several go at a time.

    Raises:
        ConfigError: the model has no layers that can go, or fewer than asked for.
    """
    free, whole = layers_of(model, groups)
    count = round(share * whole)
    if count > len(free) or not count:
        raise ConfigError(
            f"{count} of {whole} layers cannot go: {len(free)} can be left out",
            where="[[passes]] layers",
        )
    gone: dict[str, Changed] = {}
    plan, losses = dict[str, tuple[int, ...]](), list[float]()
    with Trial(subject, [each.consumer for pair in free for each in pair]) as trial:
        started = time.perf_counter()
        while len(losses) < count:
            tried = [(trial.loss({**gone, **_none(pair, known)}), at, pair)
                     for at, pair in enumerate(free)]  # fmt: skip
            a_round = (time.perf_counter() - started) / (1 + len(losses))
            left = minutes * 60 - (time.perf_counter() - started)
            at_once = max(1, round((count - len(losses)) / max(1.0, left / a_round)))
            for loss, _, pair in sorted(tried)[: min(at_once, count - len(losses))]:
                gone |= _none(pair, known)
                plan |= {each.consumer: () for each in pair}
                free.remove(pair)
                losses.append(loss)
    return plan, losses


def _none(pair: Layer, known: Known) -> Mapping[str, Changed]:
    """A layer that adds the same to every token."""
    made: dict[str, Changed] = {}
    for group in pair:
        weight = known.weights[group.consumer]
        mean = known.means[group.consumer] @ weight
        made[group.consumer] = (np.zeros(weight.shape, np.float32), mean)
    return made
