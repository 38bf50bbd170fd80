"""One activation's layers in few bits: scales of its channels or none, and then the best way."""

from ...calibration import SecondMoments
from ...calibration.awq import Sharing, scales
from ...calibration.blockwise import Grid, Matrix
from ...calibration.gptq import Compensations
from .recipe import Case, Choice, Recipe, Rounding, Vector
from .ways import Ways, by_columns, joined, to_nearest


def plain(case: Case) -> Choice:
    """Round to the nearest, no samples asked."""

    def of(weight: Matrix, grid: Grid) -> Rounding:
        return joined(by_columns(lambda part: to_nearest(case, part, grid), weight))

    return Choice(None, None, tuple(map(of, case.weights, case.grids)))


def chosen(
    case: Case, fit: SecondMoments, held_out: SecondMoments, recipe: Recipe, sharing: Sharing | None
) -> Choice:
    """The rounding of a method, `auto`: of the methods that err least on the held-out samples.

    `sharing` says which channels must share a scale, None where the activation cannot be scaled
    without a node of its own.
    """
    best = _of_scale(case, fit, held_out, recipe, None, None)
    if sharing is not None and recipe.method in ("auto", "awq"):
        found = scales(case.weights, fit, case.grids, sharing)
        if found is not None:
            scaled = _of_scale(case, fit, held_out, recipe, *found)
            best = min(best, scaled, key=lambda choice: choice.error)
    return best


def _of_scale(
    case: Case,
    fit: SecondMoments,
    held_out: SecondMoments,
    recipe: Recipe,
    scale: Vector | None,
    power: float | None,
) -> Choice:
    """The best rounding of each weight once its channels are scaled."""
    moments, shared = fit if scale is None else fit.scaled(scale), None
    if recipe.method in ("auto", "gptq"):
        shared = Compensations.of(moments, recipe.damping, ordered=recipe.act_order)
    ways = Ways(case, recipe, moments, held_out, scale, shared)
    return Choice(scale, power, tuple(map(ways.of, case.weights, case.grids)))
