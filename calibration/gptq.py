"""Rounding by blocks where later channels make up for earlier ones: GPTQ, arXiv 2210.17323.

Scales are set before (static groups), so that channels can go in any order; afterwards they are
fitted to the levels that came out, and the levels to them, at last one channel at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blockwise import Grid, Levels, Matrix, restored
from .descent import descended
from .rounding import Compensation
from .second_moments import SecondMoments

#: Channels that are rounded before their errors are passed on to all later ones.
WIDTH = 64
#: How often scales are fitted to levels and levels to scales, and how far a scale may move.
ROUNDS, LEAST, MOST = 2, 0.5, 1.5
#: Columns whose error is taken at once.
COLUMNS = 1024
#: How often every channel takes its best in the end.
SWEEPS = 2


@dataclass(frozen=True)
class Compensations:
    """What all layers that read one activation share: one `Compensation` a part of its moments."""

    moments: SecondMoments
    parts: tuple[Compensation, ...]

    @classmethod
    def of(cls, moments: SecondMoments, damping: float, *, ordered: bool) -> "Compensations":
        """From the moments; `damping` is added to their diagonal as a share of its mean."""
        made = (
            Compensation.of(part.astype(np.float64), damping, ordered=ordered)
            for part in moments.parts
        )
        return cls(moments, tuple(made))


def rounded(
    weight: Matrix,
    steps: Matrix,
    grid: Grid,
    shared: Compensations,
    stored: Callable[[Matrix], Matrix] = lambda steps: steps,
    zeros: Matrix | None = None,
) -> tuple[Levels, Matrix]:
    """Levels [k, n] and steps [k / block, n] of the least error at the layer's output found.

    `stored` makes of steps what their dtype in the graph holds. Zero points stay what they are.
    """
    levels = compensated(weight, steps, grid, shared.parts, zeros)
    best, moments = (levels, steps), shared.moments
    least = lacking(weight, levels, steps, grid, moments)
    for _ in range(ROUNDS):
        steps = stored(refitted(weight, levels, steps, grid, moments))
        levels = compensated(weight, steps, grid, shared.parts, zeros)
        error = lacking(weight, levels, steps, grid, moments)
        if error < least:
            best, least = (levels, steps), error
    for _ in range(SWEEPS):
        levels = descended(weight, *best, grid, moments, zeros)
        steps = stored(refitted(weight, levels, best[1], grid, moments))
        error = lacking(weight, levels, steps, grid, moments)
        if error >= least:
            break
        best, least = (levels, steps), error
    return best


def lacking(
    weight: Matrix, levels: Levels, steps: Matrix, grid: Grid, moments: SecondMoments
) -> float:
    """The mean square of what the outputs lack, summed over columns, some columns at a time."""
    total = 0.0
    for start in range(0, weight.shape[1], COLUMNS):
        own = slice(start, start + COLUMNS)
        wrong = weight[:, own] - restored(levels[:, own], steps[:, own], grid)
        total += moments.power(wrong)
    return total


def compensated(
    weight: Matrix,
    steps: Matrix,
    grid: Grid,
    parts: Sequence[Compensation],
    zeros: Matrix | None = None,
) -> Levels:
    """Levels [k, n] of a weight [k, n], part by part."""
    levels, start = np.empty(weight.shape, np.int8), 0
    low, high = grid.ends(zeros)
    for part in parts:
        rows = start + part.order
        at = rows // (grid.block or len(weight))  # one step a block: spread they are a weight more
        levels[rows] = _part(weight[rows], steps, (low, high), at, part.factor)
        start += len(part.order)
    return levels


def _part(
    left: Matrix,
    steps: Matrix,
    ends: tuple[Matrix, Matrix],
    at: NDArray[np.int64],
    factor: Matrix,
) -> Levels:
    """Levels of rows `left`, row i in block at[i] of the steps and of the ends."""
    levels, low, high = np.empty(left.shape, np.int8), *ends
    for start in range(0, len(left), WIDTH):
        end = min(start + WIDTH, len(left))
        errors = np.empty((end - start, left.shape[1]), np.float32)
        for row in range(start, end):
            step, block = steps[at[row]], min(at[row], len(low) - 1)
            level = np.clip(np.rint(left[row] / step), low[block], high[block])
            levels[row] = level.astype(np.int8)
            error = (left[row] - level * step) / factor[row, row]
            left[row:end] -= factor[row, row:end, None] * error
            errors[row - start] = error
        left[end:] -= factor[start:end, end:].T @ errors
    return levels


def refitted(
    weight: Matrix, levels: Levels, steps: Matrix, grid: Grid, moments: SecondMoments
) -> Matrix:
    """Steps [k / block, n] of the least error for these levels, one block after the other."""
    width = grid.block or len(weight)
    fitted, left = steps.copy(), weight - restored(levels, steps, grid)
    if width > len(moments.parts[0]):
        return fitted
    for start, part in moments.places():
        slopes = part @ left[start : start + len(part)]
        for at in range(0, len(part), width):
            own = slice(at, at + width)
            block = (start + at) // width
            q = levels[start + at : start + at + width].astype(np.float32)
            curve = (q * (part[own, own] @ q)).sum(axis=0)
            change = (q * slopes[own]).sum(axis=0) / np.maximum(curve, 1e-20)
            moved = np.clip(fitted[block] + change, LEAST * steps[block], MOST * steps[block])
            slopes -= part[:, own] @ (q * (moved - fitted[block]))
            fitted[block] = moved
    return fitted
