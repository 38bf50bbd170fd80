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
    spanning,
)
from ...calibration.gptq import Compensations, rounded
from ...calibration.steps import searched, shifted
from .recipe import Case, Method, Recipe, Rounding, Vector, Way

Result = TypeVar("Result")
#: Elements of a weight that are rounded at once.
AT_ONCE = 1 << 22
#: Columns that are compensated at once, at least: fewer take as many steps.
COLUMNS = 512
#: Columns of a weight that ways are tried on.
TRIED = 256
#: The ways that a method chooses among.
WAYS: dict[Method, tuple[Way, ...]] = {
    "auto": ("rtn", "awq", "gptq"),
    "rtn": ("rtn",),
    "awq": ("awq",),
    "gptq": ("gptq",),
}


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

    def best(self, weight: Matrix, grid: Grid) -> Rounding:
        """The way that errs least on the held-out samples, of all columns or of some."""
        power = self.held_out.power(weight)
        made = (
            replace(each, error=share(self._lacking(weight, each, grid), power))
            for each in self._made(weight, grid, WAYS[self.recipe.method])
        )
        return min(made, key=lambda each: each.error or 0.0)

    def whole(self, weight: Matrix, grid: Grid, best: Rounding) -> Rounding:
        """A weight rounded the way that was best of some of its columns."""
        if weight.shape == best.levels.shape:
            return best

        def of(part: Matrix) -> tuple[Rounding, float, float]:
            made = next(self._made(part, grid, (best.method,)))
            return made, self._lacking(part, made, grid), self.held_out.power(part)

        parts, lacking, power = zip(*by_columns(of, weight, COLUMNS), strict=True)
        return replace(joined(parts), error=share(sum(lacking), sum(power)))

    def _made(self, weight: Matrix, grid: Grid, ways: Sequence[Way]) -> Iterator[Rounding]:
        """Some columns rounded by each of the ways."""
        case, wide = self.case, weight if self.scale is None else weight * self.scale[:, None]
        if "rtn" in ways:
            yield to_nearest(case, wide, grid)
        if tuple(ways) == ("rtn",):
            return
        steps, zeros = _fitted(wide, grid, self.fit.diagonal)
        steps = case.stored(steps)
        if "awq" in ways:
            yield Rounding(nearest(wide, steps, grid, zeros), steps, "awq", zeros=zeros)
        if "gptq" in ways and self.shared is not None:
            levels, found = rounded(wide, steps, grid, self.shared, case.stored, zeros)
            yield Rounding(levels, found, "gptq", zeros=zeros)

    def _lacking(self, weight: Matrix, made: Rounding, grid: Grid) -> float:
        """The mean square of what the output lacks on the held-out samples."""
        wrong = restored(made.levels, made.steps, grid)
        if self.scale is not None:
            wrong /= self.scale[:, None]
        return self.held_out.power(np.subtract(weight, wrong, out=wrong))


def share(lacking: float, power: float) -> float:
    """What outputs lack over what they are."""
    return lacking / max(power, 1e-20)


def some(weight: Matrix) -> Matrix:
    """`TRIED` columns of a weight [k, n], the same ones each time, or all where it has no more."""
    n = weight.shape[1]
    if n <= TRIED:
        return weight
    chosen = np.sort(np.random.default_rng(0).choice(n, TRIED, replace=False))
    return np.ascontiguousarray(weight[:, chosen])


def by_columns(work: Callable[[Matrix], Result], weight: Matrix, least: int = 1) -> list[Result]:
    """`work` of a weight [k, n], `AT_ONCE` of its elements at a time: it takes several times them.

    Each column is rounded by itself, whatever lies beside it. A time has `least` columns or more.
    """
    width = max(least, AT_ONCE // len(weight))
    starts = range(0, weight.shape[1], width)
    if len(starts) == 1:
        return [work(weight)]

    def of(start: int) -> Result:
        return work(np.ascontiguousarray(weight[:, start : start + width]))

    return list(side_by_side(of, starts))


def joined(parts: Sequence[Rounding]) -> Rounding:
    """One rounding of some columns after the other."""
    levels, steps = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("levels", "steps")
    )
    moved = [part.zeros for part in parts if part.zeros is not None]
    zeros = np.concatenate(moved, axis=1) if moved else None
    return Rounding(levels, steps, parts[0].method, zeros=zeros)


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
