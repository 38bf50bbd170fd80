"""Symmetric rounding of a weight by blocks of its inputs: the grid that weight-only kernels read.

A scale covers `block` steps of K of one output, or a whole output where `block` is 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Levels = NDArray[np.int8]
#: A scale is never 0: TensorRT refuses it, and a block of zeros needs none.
LEAST = 1e-12
#: Shares of the greatest magnitude that a searched scale lets the grid reach.
SHARES = tuple(np.linspace(0.6, 1.05, 19))


@dataclass(frozen=True)
class Grid:
    """`bits` of a level and how many of the K inputs share a scale."""

    bits: int
    block: int

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


def nearest(weight: Matrix, steps: Matrix, grid: Grid) -> Levels:
    """The nearest levels [k, n]."""
    scaled = np.rint(grid.blocks(weight) / steps[:, None])
    return np.clip(scaled, -grid.top - 1, grid.top).astype(np.int8).reshape(weight.shape)


def restored(levels: Levels, steps: Matrix, grid: Grid) -> Matrix:
    """The weight [k, n] that levels stand for."""
    blocks = levels.astype(np.float32).reshape(len(steps), -1, levels.shape[1])
    return (blocks * steps[:, None]).reshape(levels.shape)
