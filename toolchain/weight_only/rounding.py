"""One activation's layers in few bits: scales of its channels or none, and then the best way."""

from collections.abc import Sequence
from dataclasses import replace

from ...calibration import SecondMoments, side_by_side
from ...calibration.awq import Sharing, scales
from ...calibration.blockwise import Grid, Matrix
from ...calibration.gptq import Compensations
from .recipe import Case, Choice, Recipe, Rounding, Vector
from .ways import Ways, by_columns, joined, some, to_nearest


def plain(case: Case) -> Choice:
    """Round to the nearest, no samples asked."""

    def of(weight: Matrix, grid: Grid) -> Rounding:
        return joined(by_columns(lambda part: to_nearest(case, part, grid), weight))

    return Choice(None, None, tuple(map(of, case.weights, case.grids)))


def chosen(
    case: Case, fit: SecondMoments, held_out: SecondMoments, recipe: Recipe, sharing: Sharing | None
) -> Choice:
    """The rounding of a method, `auto`: of the methods that err least on the held-out samples.

    It is chosen on some columns of each weight, and done to all. `sharing` says which channels
    must share a scale, None where the activation cannot be scaled without a node of its own.
    """
    few = [some(weight) for weight in case.weights]
    best = _tried(_ways(case, fit, held_out, recipe), few, None)
    if sharing is not None and recipe.method in ("auto", "awq"):
        found = scales(few, fit, case.grids, sharing)
        if found is not None:
            scale, power = found
            scaled = _tried(_ways(case, fit, held_out, recipe, scale), few, power)
            best = min(best, scaled, key=lambda each: each[1].error)
    ways, choice = best
    layers = map(ways.whole, case.weights, case.grids, choice.layers)
    return replace(choice, layers=tuple(layers))


def _ways(
    case: Case,
    fit: SecondMoments,
    held_out: SecondMoments,
    recipe: Recipe,
    scale: Vector | None = None,
) -> Ways:
    """The ways of rounding once channels are scaled, or as they are."""
    moments, shared = fit if scale is None else fit.scaled(scale), None
    if recipe.method in ("auto", "gptq"):
        shared = Compensations.of(moments, recipe.damping, ordered=recipe.act_order)
    return Ways(case, recipe, moments, held_out, scale, shared)


def _tried(ways: Ways, few: Sequence[Matrix], power: float | None) -> tuple[Ways, Choice]:
    """The best rounding of some columns of each weight."""
    layers = side_by_side(lambda each: ways.best(*each), zip(few, ways.case.grids, strict=True))
    return ways, Choice(ways.scale, power, tuple(layers))
