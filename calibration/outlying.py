"""Channels that outgrow all others: which they are, and an activation without them."""

from dataclasses import replace

import numpy as np

from .case import Case, centred

#: At most so many channels of an activation; each reaches the outputs by this many times as much
#: as the first channel that is not one of them could.
MOST, TIMES = 4, 4.0


def find_outliers(case: Case) -> tuple[int, ...]:
    """Channels whose greatest |x| times |w| is far beyond that of almost all others."""
    k = len(case.seen.low)
    if case.freedom.repeat > 1 or k < 4 * MOST:
        return ()
    weights = [
        np.abs(weight).max(axis=1) / np.sqrt(power)
        for weight, power in zip(case.weights, case.power, strict=True)
    ]
    reach = np.maximum(-case.seen.low, case.seen.high) * np.max(weights, axis=0)
    order = np.argsort(-reach, kind="stable")
    usual = float(reach[order[2 * MOST]])
    return tuple(sorted(int(i) for i in order[:MOST] if reach[i] > TIMES * usual))


def without(case: Case, channels: tuple[int, ...]) -> Case:
    """The same activation and weights with zeros in those channels; powers stay the whole's."""
    keep = np.ones(len(case.seen.low), np.float32)
    keep[list(channels)] = 0
    seen = case.seen
    both = keep if seen.moments.ndim == 1 else np.outer(keep, keep)
    weights, rows = tuple(w * keep[:, None] for w in case.weights), case.rows * keep
    return replace(
        case,
        seen=replace(
            seen,
            low=seen.low * keep,
            high=seen.high * keep,
            mean=seen.mean * keep,
            moments=seen.moments * both,
            sample=seen.sample * keep,
        ),
        weights=weights,
        rows=rows,
        wanted=tuple(centred(rows @ weight, case.importance) for weight in weights),
    )
