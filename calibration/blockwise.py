"""Rounding of a weight by blocks of its inputs: the grid that weight-only kernels read.

A scale covers `block` steps of K of one output, or a whole output where `block` is 0. So does the
zero point of a grid that has them. Levels here are counted from it: a weight is level x step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Levels = NDArray[np.int8]
#: A scale is never 0: TensorRT refuses it, and a block of zeros needs none.
LEAST = 1e-12
#: Shares of the greatest magnitude that a searched scale lets the grid reach, and of the distance
#: between the extremes where the grid may be moved.
SHARES = tuple(np.linspace(0.6, 1.05, 19))
MOVED = tuple(np.linspace(0.7, 1.1, 17))
#: Columns whose scales are searched at once.
AT_ONCE = 512


@dataclass(frozen=True)
class Grid:
    """`bits` of a level, how many of the K inputs share a scale, and whether zero may be moved."""

    bits: int
    block: int
    moved: bool = False

    @property
    def top(self) -> int:
        """The greatest level; the least is one further from zero."""
        return (1 << (self.bits - 1)) - 1

    def blocks(self, weight: Matrix) -> Matrix:
        """A weight [k, n] as a view [k / block, block, n]."""
        k, n = weight.shape
        return weight.reshape(-1, self.block or k, n)

    def spread(self, steps: Matrix, k: int) -> Matrix:
        """The step of every weight [k, n], from steps [k / block, n]."""
        return np.repeat(steps, self.block or k, axis=0)

    def ends(self, zeros: Matrix | None) -> tuple[Matrix, Matrix]:
        """The least and the greatest level counted from the zero points [k / block, n]."""
        at = np.zeros((1, 1), np.float32) if zeros is None else zeros
        return np.float32(-self.top - 1) - at, np.float32(self.top) - at


def fitting(k: int, block: int) -> int:
    """The widest block up to the asked one that K is made of, 0 where there is none."""
    sizes = (size for size in (128, 64, 32, 16) if size <= block and k % size == 0)
    return next(sizes, 0)


def reaching(weight: Matrix, grid: Grid) -> Matrix:
    """Steps [k / block, n] whose greatest level is the greatest magnitude of the block."""
    peaks = np.abs(grid.blocks(weight)).max(axis=1) / np.float32(grid.top)
    return np.maximum(peaks, np.float32(LEAST))


def searched(weight: Matrix, grid: Grid, importance: NDArray[np.float32] | None = None) -> Matrix:
    """Steps [k / block, n] of the least squared error, channels weighed by `importance` [k]."""
    parts = [_searched(part, grid, importance) for part in _columns(weight)]
    return np.concatenate(parts, axis=1)


def spanning(weight: Matrix, grid: Grid) -> tuple[Matrix, Matrix]:
    """Steps and zero points [k / block, n] that reach from the least to the greatest weight."""
    return _spanned(grid.blocks(weight), grid, 1.0)


def _spanned(values: Matrix, grid: Grid, share: float) -> tuple[Matrix, Matrix]:
    """Those of a share of the distance between the extremes, about its middle."""
    high, low = np.maximum(values.max(axis=1), 0), np.minimum(values.min(axis=1), 0)
    width = (high - low) * np.float32(share) / np.float32(2 * grid.top + 1)
    steps = np.maximum(width, np.float32(LEAST))
    middle = np.rint(-(high + low) / (2 * steps) - np.float32(0.5))
    return steps, np.clip(middle, -grid.top - 1, grid.top).astype(np.float32)


def _columns(weight: Matrix) -> Iterator[Matrix]:
    """A weight by `AT_ONCE` of its columns: what is tried of them takes several times as much."""
    for start in range(0, weight.shape[1], AT_ONCE):
        yield weight[:, start : start + AT_ONCE]


def _searched(weight: Matrix, grid: Grid, importance: NDArray[np.float32] | None) -> Matrix:
    full, values = reaching(weight, grid), grid.blocks(weight)
    weighed = np.ones(len(weight), np.float32) if importance is None else importance
    weighed = weighed.reshape(len(values), -1, 1)
    best, least = full.copy(), np.full(full.shape, np.inf, np.float32)
    for share in SHARES:
        steps = full * np.float32(share)
        levels = np.clip(np.rint(values / steps[:, None]), -grid.top - 1, grid.top)
        wrong = levels * steps[:, None] - values
        error = (wrong * wrong * weighed).sum(axis=1)
        better = error < least
        least = np.where(better, error, least)
        best = np.where(better, steps, best)
    return best


def shifted(
    weight: Matrix, grid: Grid, importance: NDArray[np.float32] | None = None
) -> tuple[Matrix, Matrix]:
    """Steps and zero points [k / block, n] of the least squared error, 0 among the zero points."""
    parts = [_shifted(part, grid, importance) for part in _columns(weight)]
    steps, zeros = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    return steps, zeros


def _shifted(
    weight: Matrix, grid: Grid, importance: NDArray[np.float32] | None
) -> tuple[Matrix, Matrix]:
    best = _searched(weight, grid, importance)
    weighed = np.ones(len(weight), np.float32) if importance is None else importance
    values, zeros = grid.blocks(weight), np.zeros_like(best)
    weighed = weighed.reshape(len(values), -1, 1)
    least = _squares(values, best, grid, zeros, weighed)
    for share in MOVED:
        steps, moved = _spanned(values, grid, share)
        error = _squares(values, steps, grid, moved, weighed)
        better = error < least
        least = np.where(better, error, least)
        best, zeros = np.where(better, steps, best), np.where(better, moved, zeros)
    return best, zeros


def _squares(
    values: Matrix, steps: Matrix, grid: Grid, zeros: Matrix, weighed: NDArray[np.float32]
) -> Matrix:
    """The weighed squared errors of blocks [k / block, n]."""
    low, high = grid.ends(zeros)
    levels = np.clip(np.rint(values / steps[:, None]), low[:, None], high[:, None])
    wrong = levels * steps[:, None] - values
    return (wrong * wrong * weighed).sum(axis=1)


def nearest(weight: Matrix, steps: Matrix, grid: Grid, zeros: Matrix | None = None) -> Levels:
    """The nearest levels [k, n]."""
    low, high = grid.ends(zeros)
    scaled = np.rint(grid.blocks(weight) / steps[:, None])
    return np.clip(scaled, low[:, None], high[:, None]).astype(np.int8).reshape(weight.shape)


def restored(levels: Levels, steps: Matrix, grid: Grid) -> Matrix:
    """The weight [k, n] that levels stand for."""
    blocks = levels.astype(np.float32).reshape(len(steps), -1, levels.shape[1])
    return (blocks * steps[:, None]).reshape(levels.shape)
