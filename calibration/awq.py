"""Channels that matter more are made larger before rounding: AWQ, arXiv 2306.00978.

x @ w = (x / s) @ (s w): the scale s of a channel is a power of its mean size, and the power is
the one whose rounded weights err least at the output.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blockwise import Grid, Matrix, nearest, reaching, restored, spanning
from .second_moments import SecondMoments

Vector = NDArray[np.float32]
#: Powers that are tried.
POWERS = tuple(np.linspace(0.1, 1.0, 10))
#: Columns of each weight that powers are tried on: they are much alike.
COLUMNS = 256


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
    weights: Iterable[Matrix], moments: SecondMoments, grids: Sequence[Grid], sharing: Sharing
) -> tuple[Vector, float] | None:
    """The scale [k] of an activation's channels and its power; None where none is of use."""
    size = np.maximum(sharing.of(moments.size), 1e-8)
    few = list(map(_few, weights))
    best, least = None, _error(few, moments, grids, np.ones_like(size))
    for power in POWERS:
        scale = size ** np.float32(power)
        scale = scale / np.sqrt(scale.max() * scale.min())
        error = _error(few, moments, grids, scale)
        if error < least:
            best, least = (scale, float(power)), error
    return best


def _few(weight: Matrix) -> Matrix:
    """Some columns of a weight, in memory of their own: the rest may go."""
    return np.ascontiguousarray(weight[:, :: max(1, weight.shape[1] // COLUMNS)])


def _error(
    weights: Sequence[Matrix], moments: SecondMoments, grids: Sequence[Grid], scale: Vector
) -> float:
    total = 0.0
    for weight, grid in zip(weights, grids, strict=True):
        wide = weight * scale[:, None]
        steps, zeros = spanning(wide, grid) if grid.moved else (reaching(wide, grid), None)
        narrow = restored(nearest(wide, steps, grid, zeros), steps, grid)
        wrong = (wide - narrow) / scale[:, None]
        total += moments.power(wrong.astype(np.float32)) / max(moments.power(weight), 1e-20)
    return total
