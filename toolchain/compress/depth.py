"""Which whole layers go: one after the other, each time the one that costs least at the outputs.

As SLEB does (arXiv 2402.09025); what a layer added is replaced by its mean over the samples.
"""

import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import onnx_ir as ir

from ... import ConfigError
from ...passes.coupling import Group
from ...passes.remove import droppable
from .known import Known
from .skipping import Layer, Skips
from .subject import Plan, Subject

KINDS = ("heads", "neurons")


def layers_of(model: ir.Model, groups: Sequence[Group]) -> tuple[list[Layer], int]:
    """The layers that can go as a whole, in order, and how many layers there are in all."""
    pairs = [pair for pair in pairwise(groups) if (pair[0].kind, pair[1].kind) == KINDS]
    free = [pair for pair in pairs if all(droppable(model, each) for each in pair)]
    return free, len(pairs)


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
    gone, losses = list[int](), list[float]()
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside:
        skips = Skips(subject, model, free, known, Path(aside))
        started = time.perf_counter()
        while len(losses) < count:
            tried = sorted((loss, at) for at, loss in skips.losses(gone).items())
            a_round = (time.perf_counter() - started) / (1 + len(losses))
            left = minutes * 60 - (time.perf_counter() - started)
            at_once = max(1, round((count - len(losses)) / max(1.0, left / a_round)))
            for loss, at in tried[: min(at_once, count - len(losses))]:
                gone.append(at)
                losses.append(loss)
    return {each.consumer: () for at in gone for each in free[at]}, losses
