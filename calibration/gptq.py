"""Rounding by blocks where later channels make up for earlier ones: GPTQ, arXiv 2210.17323.

Scales are set before (static groups), so that channels can go in any order; afterwards channels
and scales take their best in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blockwise import Grid, Levels, Matrix
from .descent import Rows, Stored, as_they_are, descend
from .second_moments import SecondMoments

#: Channels that are factorised at once.
WIDTH = 128
#: How often channels and scales take their best after each compensation: what follows begins with
#: scales that were fitted.
SWEEPS = (1, 1, 2)


@dataclass(frozen=True)
class Order:
    """Channels in the order they are rounded in, and the lower C [k, k], C'C their moments."""

    order: NDArray[np.int64]
    factor: Matrix

    @classmethod
    def of(cls, moments: Matrix, damping: float, *, ordered: bool) -> "Order":
        """By the size of moments [k, k], or in their own order; `damping` as `Compensations`.

        More is added where the moments are such that rounding drowned them.
        """
        size = -moments.diagonal() if ordered else np.zeros(len(moments))
        order = np.argsort(size, kind="stable")
        mean = float(moments.diagonal().mean(dtype=np.float64))
        while True:
            own = moments[np.ix_(order, order)]
            own[np.diag_indices_from(own)] += max(damping * mean, 1e-12)
            try:
                return cls(order, _factorised(own))
            except np.linalg.LinAlgError:
                damping *= 10


def _factorised(own: Matrix) -> Matrix:
    """The lower C [k, k], C'C the moments, in their place: from the last channel to the first."""
    for end in range(len(own), 0, -WIDTH):
        rows = slice(max(0, end - WIDTH), end)
        own[rows, :end] -= own[end:, rows].T @ own[end:, :end]
        corner = np.linalg.cholesky(own[rows, rows][::-1, ::-1])[::-1, ::-1].T
        own[rows, : rows.start] = np.linalg.solve(corner.T, own[rows, : rows.start])
        own[rows, rows], own[rows, end:] = corner, 0
    return own


@dataclass(frozen=True)
class Compensations:
    """What all layers that read one activation share: one `Order` a part of its moments."""

    moments: SecondMoments
    parts: tuple[Order, ...]

    @classmethod
    def of(cls, moments: SecondMoments, damping: float, *, ordered: bool) -> "Compensations":
        """From the moments; `damping` is added to their diagonal as a share of its mean."""
        made = (Order.of(part, damping, ordered=ordered) for part in moments.parts)
        return cls(moments, tuple(made))


def rounded(
    weight: Matrix,
    steps: Matrix,
    grid: Grid,
    shared: Compensations,
    stored: Stored = as_they_are,
    zeros: Matrix | None = None,
    sweeps: Sequence[int] = SWEEPS,
) -> tuple[Levels, Matrix]:
    """Levels [k, n] and steps [k / block, n]: compensated, then at their best, so many `sweeps`.

    `stored` makes of steps what their dtype in the graph holds. Zero points stay what they are,
    and so does a step of a whole output: that is compensated once.
    """
    levels, steps = np.empty(weight.shape, grid.kind), steps.copy()
    blocks = np.arange(len(weight)) // (grid.block or len(weight))
    fitted = (grid.block, stored) if grid.block else None
    for (start, moments), part in zip(shared.moments.places(), shared.parts, strict=True):
        own = slice(start, start + len(moments))
        left = np.empty_like(weight[own])
        rows = Rows(weight[own], levels[own], left, steps, grid.ends(zeros), blocks[own])
        for count in sweeps if fitted else sweeps[-1:]:
            _compensate(rows, part)
            for _ in range(count):
                descend(rows, moments, fitted=fitted)
    return levels, steps


def _compensate(rows: Rows, part: Order) -> None:
    """Round the channels in the part's order."""
    order = part.order
    turned = Rows(
        rows.weight[order],
        np.empty_like(rows.levels),
        np.zeros_like(rows.left),
        rows.steps,
        rows.ends,
        rows.at[order],
    )
    descend(turned, part.factor, earlier=True)
    rows.levels[order], rows.left[order] = turned.levels, turned.left
