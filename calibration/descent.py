"""One pass over a weight's channels, each rounded so that it makes up for what the others lack.

Where levels leave e of a weight, the outputs lack x @ e: a mean square of e'He, H the moments of
x. Of the other channels as they stand, the best level of channel i is the nearest to

    (w_i + sum_j C_ij e_j / C_ii) / step.

With C = H and all others this is coordinate descent (QuantEase, arXiv 2309.01885); with H = C'C, C
lower, and the earlier ones alone it is GPTQ (arXiv 2210.17323, in the words of arXiv 2307.13304),
and no inverse is formed. What lies further apart than a stretch is added by one product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blockwise import Levels, Matrix

Stored = Callable[[Matrix], Matrix]
#: Channels whose moves are passed on to all others at once, and to those of their stretch.
STRETCH, AT_ONCE = 128, 32
#: How far a fitted step may move.
LEAST, MOST = 0.5, 1.5


def as_they_are(steps: Matrix) -> Matrix:
    """Steps of a graph in float32."""
    return steps


@dataclass(frozen=True)
class Rows:
    """Channels of a weight [k, n] that are rounded where they lie, channel i in block at[i].

    `left` is weight - levels x steps, 0 of what is not rounded yet; `ends` are the least and the
    greatest levels [blocks or 1, n].
    """

    weight: Matrix
    levels: Levels
    left: Matrix
    steps: Matrix
    ends: tuple[Matrix, Matrix]
    at: NDArray[np.int64]

    def of(self, own: slice) -> "Rows":
        """Some of the channels."""
        mine = (self.weight[own], self.levels[own], self.left[own])
        return Rows(*mine, self.steps, self.ends, self.at[own])

    def take(self, row: int, lack: Matrix) -> Matrix:
        """Give a channel the best level where the others lack `lack` [n]; the change of `left`."""
        step, block = self.steps[self.at[row]], min(self.at[row], len(self.ends[0]) - 1)
        change, level = self.left[row].copy(), self.weight[row] - self.left[row]
        level += lack
        level /= step
        np.rint(level, out=level)
        np.maximum(level, self.ends[0][block], out=level)  # clip takes twice as long
        np.minimum(level, self.ends[1][block], out=level)
        self.levels[row] = level
        level *= step
        np.subtract(self.weight[row], level, out=self.left[row])
        return np.subtract(self.left[row], change, out=change)

    def fit(self, own: slice, moments: Matrix, slopes: Matrix, stored: Stored) -> Matrix:
        """Give a block the step of the least error for its levels; the change of `left`.

        `slopes` [block, n] are the moments of its channels and all others times `left`.
        """
        step, levels = self.steps[self.at[own.start]], self.levels[own].astype(np.float32)
        slope = np.einsum("kn,kn->n", levels, slopes)
        curve = np.maximum(np.einsum("kn,kn->n", levels, moments @ levels), 1e-20)
        wanted = stored(np.clip(step + slope / curve, LEAST * step, MOST * step))
        change = wanted - step
        better = change * (2 * slope - change * curve) > 0  # rounded as stored it may be worse
        levels *= np.where(better, -change, 0)
        self.steps[self.at[own.start]] = np.where(better, wanted, step)
        self.left[own] += levels
        return levels


def descend(
    rows: Rows, coupling: Matrix, *, earlier: bool = False, fitted: tuple[int, Stored] | None = None
) -> None:
    """Every channel in turn takes its best; with `earlier`, for those before it alone.

    `fitted` are the width of blocks and what their dtype in the graph makes of steps: each block's
    steps are then fitted to its levels as well, one block after the other.
    """
    count = len(coupling)
    for start in range(0, count, STRETCH):
        own = slice(start, min(start + STRETCH, count))
        known = slice(0, start if earlier else count)
        lack = coupling[own, known] @ rows.left[known]
        _stretch(rows.of(own), coupling[own, own], lack, fitted)


def _stretch(rows: Rows, coupling: Matrix, lack: Matrix, fitted: tuple[int, Stored] | None) -> None:
    """A stretch of channels that lack `lack` [w, n] of all; `coupling` [w, w] is their own."""
    curves, moves = np.maximum(coupling.diagonal(), 1e-20), np.zeros_like(lack)
    block, stored = fitted or (0, as_they_are)
    width = max(AT_ONCE, block)
    for first in range(0, len(lack), width):
        last = min(first + width, len(lack))
        lack[first:last] += coupling[first:last, :first] @ moves[:first]
        for row in range(first, last):
            near = slice(first, row)
            seen = lack[row] + coupling[row, near] @ moves[near]
            moves[row] = rows.take(row, seen / curves[row])
        for start in range(first, last, block) if block else ():
            own, near = slice(start, start + block), slice(first, last)
            lack[own] += coupling[own, near] @ moves[near]
            moves[own] += rows.fit(own, coupling[own, own], lack[own], stored)
