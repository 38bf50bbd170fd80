"""Which calibration samples are fitted to, and which only judge what came of it."""

from collections.abc import Sequence
from typing import TypeVar

#: Every so many batches one is held out.
EVERY = 8
Sample = TypeVar("Sample")
Batches = list[Sequence[Sample]]


def hold_out(samples: Sequence[Sample], batch: int) -> tuple[Batches[Sample], Batches[Sample]]:
    """Batches to fit to, and batches held out, of `batch` samples at most.

    Every eighth batch is held out; of fewer batches every eighth sample; of fewer samples the
    last. A single sample has to do both.
    """
    batches = _batches(samples, batch)
    if len(batches) >= EVERY:
        return _every(batches)
    fit, held_out = _every(samples) if len(samples) >= EVERY else (samples[:-1], samples[-1:])
    return _batches(fit or samples, batch), _batches(held_out, batch)


def _batches(samples: Sequence[Sample], batch: int) -> Batches[Sample]:
    return [samples[start : start + batch] for start in range(0, len(samples), batch)]


def _every(items: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    kept = [item for place, item in enumerate(items, 1) if place % EVERY]
    return kept, list(items[EVERY - 1 :: EVERY])
