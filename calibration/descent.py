"""Levels moved one channel at a time to the best for all others: QuantEase, arXiv 2309.01885."""

import numpy as np
from numpy.typing import NDArray

from .blockwise import Grid, Levels, Matrix, restored
from .second_moments import SecondMoments

#: Channels whose moves are passed on to all others at once.
WIDTH = 64


def descended(
    weight: Matrix,
    levels: Levels,
    steps: Matrix,
    grid: Grid,
    moments: SecondMoments,
    zeros: Matrix | None = None,
) -> Levels:
    """Levels [k, n] after every channel in turn took its best; the error at the output falls."""
    made, ends = levels.copy(), grid.ends(zeros)
    left: Matrix = weight - restored(levels, steps, grid)
    blocks = np.arange(len(weight)) // (grid.block or len(weight))
    for start, part in moments.places():
        rows = slice(start, start + len(part))
        slopes: Matrix = (part @ left[rows]).astype(np.float32, copy=False)
        _move(made[rows], slopes, steps, ends, blocks[rows], part)
    return made


def _move(
    levels: Levels,
    slopes: Matrix,
    steps: Matrix,
    ends: tuple[Matrix, Matrix],
    at: NDArray[np.int64],
    moments: Matrix,
) -> None:
    """Move the levels of a part, row i in block at[i]; `slopes` are moments @ what they lack."""
    curves, low, high = np.maximum(moments.diagonal(), 1e-20), *ends
    for start in range(0, len(levels), WIDTH):
        end = min(start + WIDTH, len(levels))
        own, moves = slopes[start:end].copy(), np.empty_like(slopes[start:end])
        for row in range(start, end):
            step, block = steps[at[row]], min(at[row], len(low) - 1)
            wanted = levels[row] + own[row - start] / (curves[row] * step)
            level = np.clip(np.rint(wanted), low[block], high[block])
            move = (levels[row] - level) * step
            levels[row], moves[row - start] = level.astype(np.int8), move
            own += moments[start:end, row, None] * move
        slopes += moments[:, start:end] @ moves
