"""Steps and zero points of blocks whose nearest levels err least: searched, block by block."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .blockwise import Grid, Matrix, extremes, reaching, spanned

Vector = NDArray[np.float32]
#: Shares of the greatest magnitude that a searched scale lets the grid reach, and of the distance
#: between the extremes where the grid may be moved.
SHARES = tuple(np.linspace(0.6, 1.05, 19))
MOVED = tuple(np.linspace(0.7, 1.1, 17))
#: Columns and rows that are tried at once: what lies beside the processor, not in memory.
COLUMNS, ROWS = 1024, 32


def searched(weight: Matrix, grid: Grid, importance: Vector | None = None) -> Matrix:
    """Steps [k / block, n] of the least squared error, channels weighed by `importance` [k]."""
    return _found(weight, grid, importance, SHARES, ())[0]


def shifted(weight: Matrix, grid: Grid, importance: Vector | None = None) -> tuple[Matrix, Matrix]:
    """Steps and zero points [k / block, n] of the least squared error, 0 among the zero points."""
    return _found(weight, grid, importance, SHARES, MOVED)


def _found(
    weight: Matrix,
    grid: Grid,
    importance: Vector | None,
    shares: tuple[float, ...],
    moved: tuple[float, ...],
) -> tuple[Matrix, Matrix]:
    """The best of the grids that reach `shares` about 0 and `moved` about the middle."""
    blocks = grid.blocks(weight)
    steps, zeros = (np.empty((len(blocks), weight.shape[1]), np.float32) for _ in range(2))
    weighed = np.ones(len(weight), np.float32) if importance is None else importance
    for at, own, values in _tiles(blocks):
        tried, middles = _tried(values, grid, shares, moved)
        errors = _errors(values, tried, grid, middles, weighed.reshape(len(blocks), -1)[at])
        best = errors.argmin(axis=0), np.arange(values.shape[1])
        steps[at, own], zeros[at, own] = tried[best], middles[best]
    return steps, zeros


def _tiles(blocks: Matrix) -> Iterator[tuple[int, slice, Matrix]]:
    """Some columns [block, n] of a block at a time, which block and which columns."""
    for at, block in enumerate(blocks):
        for start in range(0, block.shape[1], COLUMNS):
            own = slice(start, start + COLUMNS)
            yield at, own, block[:, own]


def _tried(
    values: Matrix, grid: Grid, shares: tuple[float, ...], moved: tuple[float, ...]
) -> tuple[Matrix, Matrix]:
    """Steps and zero points [tries, n] of one block [block, n]."""
    full, ends = reaching(values, Grid(grid.bits, 0)), extremes(values[None])
    about = [spanned(*ends, grid, share) for share in moved]
    steps = [full * np.float32(share) for share in shares]
    zeros = np.zeros((len(shares), values.shape[1]), np.float32)
    return (
        np.concatenate([*steps, *(step for step, _ in about)]),
        np.concatenate([zeros, *(zero for _, zero in about)]),
    )


def _errors(values: Matrix, steps: Matrix, grid: Grid, zeros: Matrix, weighed: Vector) -> Matrix:
    """The weighed squared errors [tries, n] of one block [block, n], a few rows at a time."""
    errors, (low, high) = np.zeros(steps.shape, np.float32), grid.ends(zeros)
    for start in range(0, len(values), ROWS):
        rows, share = values[start : start + ROWS], weighed[start : start + ROWS]
        wrong = np.empty_like(rows)
        for at, step in enumerate(steps):
            np.divide(rows, step, out=wrong)
            np.rint(wrong, out=wrong)
            np.clip(wrong, low[at], high[at], out=wrong)
            wrong *= step
            wrong -= rows
            wrong *= wrong
            errors[at] += share @ wrong
    return errors
