"""Levels moved one channel at a time to the best for all others: QuantEase, arXiv 2309.01885."""

import numpy as np

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
    spread, made = grid.spread(steps, len(weight)), levels.astype(np.float32)
    low, high = (np.broadcast_to(end, steps.shape) for end in grid.ends(zeros))
    ends = (grid.spread(low, len(weight)), grid.spread(high, len(weight)))
    left = weight - restored(levels, steps, grid)
    for start, part in moments.places():
        rows = slice(start, start + len(part))
        limits = (ends[0][rows], ends[1][rows])
        made[rows] = _part(made[rows], left[rows], spread[rows], limits, part)
    return made.astype(np.int8)


def _part(
    levels: Matrix, left: Matrix, steps: Matrix, ends: tuple[Matrix, Matrix], moments: Matrix
) -> Matrix:
    """The levels of a part of the channels; `left` is what they lack of the weight."""
    slopes, curves = moments @ left, np.maximum(moments.diagonal(), 1e-20)
    for start in range(0, len(levels), WIDTH):
        end = min(start + WIDTH, len(levels))
        own, moves = slopes[start:end].copy(), np.empty_like(levels[start:end])
        for row in range(start, end):
            wanted = levels[row] + own[row - start] / (curves[row] * steps[row])
            level = np.clip(np.rint(wanted), ends[0][row], ends[1][row])
            move = (levels[row] - level) * steps[row]
            levels[row], moves[row - start] = level, move
            own += moments[start:end, row, None] * move
        slopes += moments[:, start:end] @ moves
    return levels
