"""The ways of rounding one weight, some columns at a time, and the one that errs least."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ...calibration import SecondMoments, side_by_side
from ...calibration.blockwise import (
    Grid,
    Matrix,
    nearest,
    reaching,
    restored,
    searched,
    shifted,
    spanning,
)
from ...calibration.gptq import Compensations, rounded
from .recipe import Case, Recipe, Rounding, Vector

Result = TypeVar("Result")
#: Elements of a weight that are rounded at once.
AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Ways:
    """How weights that read one activation are rounded: their channels by `scale` first, where
    there is one, and then by the `fit` moments of what that leaves of the activation.
    """

    case: Case
    recipe: Recipe
    fit: SecondMoments
    held_out: SecondMoments
    scale: Vector | None = None
    shared: Compensations | None = None

    def of(self, weight: Matrix, grid: Grid) -> Rounding:
        """The way that errs least on the held-out samples, some columns at a time."""
        parts = by_columns(lambda part: self._tried(part, grid), weight)
        power = max(sum(power for _, power in parts), 1e-20)
        ways = zip(*(tried for tried, _ in parts), strict=True)
        return joined(min(ways, key=lacking), power)

    def _tried(self, weight: Matrix, grid: Grid) -> tuple[list[Rounding], float]:
        """Every way's rounding of some columns, its error not yet over their power, and that."""
        wide = weight if self.scale is None else weight * self.scale[:, None]
        tried = (
            replace(each, error=self._lacking(weight, each, grid))
            for each in self._ways(wide, grid)
        )
        return list(tried), self.held_out.power(weight)

    def _ways(self, weight: Matrix, grid: Grid) -> Iterator[Rounding]:
        case, method = self.case, self.recipe.method
        if method in ("auto", "rtn"):
            yield to_nearest(case, weight, grid)
        if method == "rtn":
            return
        steps, zeros = _fitted(weight, grid, self.fit.diagonal)
        steps = case.stored(steps)
        if method in ("auto", "awq"):
            yield Rounding(nearest(weight, steps, grid, zeros), steps, "awq", zeros=zeros)
        if self.shared is not None:
            levels, found = rounded(weight, steps, grid, self.shared, case.stored, zeros)
            yield Rounding(levels, found, "gptq", zeros=zeros)

    def _lacking(self, weight: Matrix, made: Rounding, grid: Grid) -> float:
        """The mean square of what the output lacks on the held-out samples."""
        wrong = restored(made.levels, made.steps, grid)
        if self.scale is not None:
            wrong /= self.scale[:, None]
        return self.held_out.power(np.subtract(weight, wrong, out=wrong))


def by_columns(work: Callable[[Matrix], Result], weight: Matrix) -> list[Result]:
    """`work` of a weight [k, n], `AT_ONCE` of its elements at a time: it takes several times them.

    Each column is rounded by itself, whatever lies beside it.
    """
    width = max(1, AT_ONCE // len(weight))
    starts = range(0, weight.shape[1], width)
    if len(starts) == 1:
        return [work(weight)]

    def of(start: int) -> Result:
        return work(np.ascontiguousarray(weight[:, start : start + width]))

    return list(side_by_side(of, starts))


def lacking(parts: Sequence[Rounding]) -> float:
    """What the outputs of all columns lack."""
    return sum(part.error or 0.0 for part in parts)


def joined(parts: Sequence[Rounding], power: float | None = None) -> Rounding:
    """One rounding of some columns after the other; what they lack is taken over `power`."""
    levels, steps = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("levels", "steps")
    )
    moved = [part.zeros for part in parts if part.zeros is not None]
    zeros = np.concatenate(moved, axis=1) if moved else None
    error = None if power is None else lacking(parts) / power
    return Rounding(levels, steps, parts[0].method, error, zeros)


def _fitted(weight: Matrix, grid: Grid, importance: Vector) -> tuple[Matrix, Matrix | None]:
    if grid.moved:
        return shifted(weight, grid, importance)
    return searched(weight, grid, importance), None


def to_nearest(case: Case, weight: Matrix, grid: Grid) -> Rounding:
    """Every weight to the nearest level of a grid that reaches its extremes."""
    zeros = None
    if grid.moved:
        steps, zeros = spanning(weight, grid)
    else:
        steps = reaching(weight, grid)
    steps = case.stored(steps)
    return Rounding(nearest(weight, steps, grid, zeros), steps, "rtn", zeros=zeros)
