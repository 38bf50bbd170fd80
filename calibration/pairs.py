"""INT8 weights whose products add up in 16 bits, two by two, whatever the activation is.

x86 without a dot product of bytes multiplies uint8 by int8 with `vpmaddubsw`: the products of two
neighbours along k are added in 16 bits, and what does not fit is cut off, silently. 255 * 128 fits:
so where two neighbours of one sign come to no more than 128 in size, the fast kernel is exact.
Halving all weights would do as well (ONNX Runtime's `reduce_range`), for four times the noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .observers import LEVELS

Matrix = NDArray[np.float32]
Levels = NDArray[np.int8]

#: What two neighbours of one sign may come to: 255 times this fits in int16.
LIMIT = 128
#: How much wider than its extremes a column's step may be, so that fewer pairs have to give way.
WIDER = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0)


def fitted(levels: Levels) -> Levels:
    """The nearest levels [k, n] whose pairs stay within `LIMIT`: both give half of what is over."""
    pairs = _pairs(levels)
    excess, sign = _excess(pairs), np.sign(pairs[:, 0])
    pairs[:, 0] -= sign * (excess - excess // 2)
    pairs[:, 1] -= sign * (excess // 2)
    return pairs.reshape(-1, levels.shape[1])[: len(levels)].astype(np.int8)


def steps_of(weight: Matrix, steps: NDArray[np.float32], power: Matrix) -> NDArray[np.float32]:
    """The step of each column [n] that leaves the least error once its pairs fit.

    `steps` keep the extremes; `power` [k] is the mean square of each input of the weight [k, n].
    """
    best, least = steps, np.full(len(steps), np.inf)
    for factor in WIDER:
        wider = (steps * np.float32(factor)).astype(np.float32)
        levels = np.clip(np.rint(weight / wider), -LEVELS, LEVELS).astype(np.int8)
        wrong = weight - fitted(levels) * wider
        error = power.astype(np.float64) @ (wrong * wrong)
        best = np.where(error < least, wider, best)
        least = np.minimum(error, least)
    return best.astype(np.float32)


def _pairs(levels: Levels) -> NDArray[np.int16]:
    """Levels [k, n] as [pairs, 2, n]; an odd k ends in a pair with 0."""
    wide = levels.astype(np.int16)
    if len(wide) % 2:
        wide = np.concatenate([wide, np.zeros_like(wide[:1])])
    return wide.reshape(-1, 2, levels.shape[1])


def _excess(pairs: NDArray[np.int16]) -> NDArray[np.int16]:
    """By how much each pair is over, 0 where its signs differ."""
    first, second = pairs[:, 0], pairs[:, 1]
    over = np.abs(first + second) - LIMIT
    return np.where((first > 0) == (second > 0), np.maximum(over, 0), 0).astype(np.int16)


@dataclass(frozen=True)
class Room:
    """What is left for each level while they are chosen one channel after the other."""

    chosen: NDArray[np.int16]

    @classmethod
    def of(cls, k: int, n: int) -> "Room":
        """Nothing is chosen yet."""
        return cls(np.zeros((k + k % 2, n), np.int16))

    def take(self, channel: int, level: Matrix) -> Matrix:
        """The level [n] of a channel within what its neighbour leaves, which is then taken."""
        other = self.chosen[channel ^ 1]
        high = np.minimum(LIMIT - np.maximum(other, 0), LEVELS)
        low = np.maximum(np.maximum(-other, 0) - LIMIT, -LEVELS)
        taken = np.clip(level, low, high)
        self.chosen[channel] = taken
        return taken.astype(np.float32)
