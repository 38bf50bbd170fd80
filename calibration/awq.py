"""Channels that matter more are made larger before rounding: AWQ, arXiv 2306.00978.

x @ w = (x / s) @ (s w): the scale s of a channel is a power of its mean size, and the power is
the one whose rounded weights err least at the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blockwise import Grid, Matrix, nearest, reaching, restored, spanning
from .second_moments import SecondMoments
from .threads import side_by_side

Vector = NDArray[np.float32]
#: Powers that are tried.
POWERS = tuple(np.linspace(0.1, 1.0, 10))


@dataclass(frozen=True)
class Sharing:
    """Channels that must have one scale: `repeat` heads of `width` channels each share theirs."""

    repeat: int = 1
    width: int = 0

    def of(self, size: Vector) -> Vector:
        """One size [k] for all that share a scale: their mean."""
        if self.repeat == 1:
            return size
        heads = size.reshape(-1, self.repeat, self.width)
        return np.broadcast_to(heads.mean(axis=1, keepdims=True), heads.shape).reshape(-1)


def scales(
    weights: Sequence[Matrix], moments: SecondMoments, grids: Sequence[Grid], sharing: Sharing
) -> tuple[Vector, float] | None:
    """The scale [k] of an activation's channels and its power; None where none is of use.

    Some columns of each weight are enough: they are much alike.
    """
    size = np.maximum(sharing.of(moments.size), 1e-8)
    powers = [max(moments.power(weight), 1e-20) for weight in weights]

    def error(scale: Vector) -> float:
        wrong = map(_wrong, weights, grids, [scale] * len(weights))
        return sum(moments.power(e) / power for e, power in zip(wrong, powers, strict=True))

    tried = [_scale(size, power) for power in POWERS]
    errors = list(side_by_side(error, [np.ones_like(size), *tried]))
    best = int(np.argmin(errors))
    return (tried[best - 1], float(POWERS[best - 1])) if best else None


def _scale(size: Vector, power: float) -> Vector:
    """A power of the channels' sizes, about 1."""
    scale = size ** np.float32(power)
    return scale / np.sqrt(scale.max() * scale.min())


def _wrong(weight: Matrix, grid: Grid, scale: Vector) -> Matrix:
    """What rounding to the nearest leaves of a weight whose channels are scaled."""
    wide = weight * scale[:, None]
    steps, zeros = spanning(wide, grid) if grid.moved else (reaching(wide, grid), None)
    wide -= restored(nearest(wide, steps, grid, zeros), steps, grid)
    wide /= scale[:, None]
    return wide
