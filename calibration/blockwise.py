"""Rounding of a weight by blocks of its inputs: the grid that weight-only kernels read.

A scale covers `block` steps of K of one output, or a whole output where `block` is 0. So does the
zero point of a grid that has them. Levels here are counted from it: a weight is level x step.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Levels = NDArray[np.int8 | np.int16]
#: A scale is never 0: TensorRT refuses it, and a block of zeros needs none.
LEAST = 1e-12


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

    @property
    def kind(self) -> type[np.int8 | np.int16]:
        """What holds levels: those of 8 bits reach further than int8, counted from a zero point."""
        return np.int16 if self.moved and self.bits == 8 else np.int8

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


def spanning(weight: Matrix, grid: Grid) -> tuple[Matrix, Matrix]:
    """Steps and zero points [k / block, n] that reach from the least to the greatest weight."""
    return spanned(*extremes(grid.blocks(weight)), grid)


def extremes(blocks: Matrix) -> tuple[Matrix, Matrix]:
    """The least and the greatest weight [k / block, n] of blocks [k / block, block, n], or 0."""
    return np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)


def spanned(low: Matrix, high: Matrix, grid: Grid, share: float = 1.0) -> tuple[Matrix, Matrix]:
    """Those of a share of the distance between the extremes, about its middle."""
    width = (high - low) * np.float32(share) / np.float32(2 * grid.top + 1)
    steps = np.maximum(width, np.float32(LEAST))
    middle = np.rint(-(high + low) / (2 * steps) - np.float32(0.5))
    return steps, np.clip(middle, -grid.top - 1, grid.top).astype(np.float32)


def nearest(weight: Matrix, steps: Matrix, grid: Grid, zeros: Matrix | None = None) -> Levels:
    """The nearest levels [k, n]."""
    low, high = grid.ends(zeros)
    scaled = np.rint(grid.blocks(weight) / steps[:, None])
    return np.clip(scaled, low[:, None], high[:, None]).astype(grid.kind).reshape(weight.shape)


def restored(levels: Levels, steps: Matrix, grid: Grid) -> Matrix:
    """The weight [k, n] that levels stand for."""
    blocks = levels.astype(np.float32).reshape(len(steps), -1, levels.shape[1])
    blocks *= steps[:, None]
    return blocks.reshape(levels.shape)
