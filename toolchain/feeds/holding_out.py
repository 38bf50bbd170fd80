"""Which calibration samples are fitted to, and which only judge what came of it."""

from collections.abc import Sequence
from typing import TypeVar

#: Every so many batches one is held out.
EVERY = 8
Sample = TypeVar("Sample")


def hold_out(samples: Sequence[Sample], batch: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to fit to, and samples held out.

    Every eighth batch of `batch` is held out; of fewer batches every eighth sample; of fewer
    samples the last. A single sample has to do both.
    """
    run = batch if len(samples) > (EVERY - 1) * batch else 1
    if len(samples) < EVERY:
        return list(samples[:-1] or samples), list(samples[-1:])
    held_out = [place // run % EVERY == EVERY - 1 for place in range(len(samples))]
    pairs = list(zip(samples, held_out, strict=True))
    return [each for each, held in pairs if not held], [each for each, held in pairs if held]
