"""One activation's layers in few bits: the methods, and the choice between them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...calibration import SecondMoments
from ...calibration.awq import Sharing, scales
from ...calibration.blockwise import (
    Grid,
    Levels,
    Matrix,
    nearest,
    reaching,
    searched,
    shifted,
    spanning,
)
from ...calibration.gptq import Compensations, lacking, rounded

Method = Literal["auto", "rtn", "gptq", "awq"]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """How weights are rounded: `block` inputs share a scale (0: all), `damping` is GPTQ's.

    With `moved` each block may have a zero point other than 0, where the target takes such.
    """

    bits: int
    block: int
    method: Method = "auto"
    act_order: bool = True
    damping: float = 0.01
    moved: bool = False


@dataclass(frozen=True)
class Rounding:
    """Levels [k, n] and steps [k / block, n] of one weight, how they were found, what they cost.

    Levels are counted from the zero points `zeros` [k / block, n], 0 where they are None.

    `error` is the mean square of what the layer's output lacks over that of the output, on
    held-out samples; None where there are none.
    """

    levels: Levels
    steps: Matrix
    method: str
    error: float | None = None
    zeros: Matrix | None = None

    def lean(self) -> "Rounding":
        """What is told of it, its levels not held in memory."""
        none = np.zeros((0, 0), np.int8)
        return Rounding(none, none.astype(np.float32), self.method, self.error)


@dataclass(frozen=True)
class Choice:
    """An activation's scale [k], None for none, its power, and a rounding for each layer."""

    scale: Vector | None
    power: float | None
    layers: tuple[Rounding, ...]

    @property
    def error(self) -> float:
        """The errors of all layers."""
        return sum(each.error or 0.0 for each in self.layers)


@dataclass(frozen=True)
class Case:
    """Weights [k, n] that read one activation, each with its grid; scales are of this kind."""

    weights: tuple[Matrix, ...]
    grids: tuple[Grid, ...]
    kind: np.dtype[np.generic]

    def stored(self, steps: Matrix) -> Matrix:
        """Steps as the graph's dtype holds them."""
        return steps.astype(self.kind).astype(np.float32)


def plain(case: Case) -> Choice:
    """Round to the nearest, no samples asked."""
    return Choice(None, None, tuple(_nearest(case, w, g) for w, g in _pairs(case)))


def chosen(
    case: Case, fit: SecondMoments, held_out: SecondMoments, recipe: Recipe, sharing: Sharing | None
) -> Choice:
    """The rounding of a method, `auto`: of the methods that err least on the held-out samples.

    `sharing` says which channels must share a scale, None where the activation cannot be scaled
    without a node of its own.
    """
    if recipe.method == "rtn":
        return _measured(case, plain(case), held_out, None)
    choices = [_of_scale(case, fit, held_out, recipe, None, None)]
    if sharing is not None and recipe.method != "gptq":
        found = scales(case.weights, fit, case.grids, sharing)
        if found is not None:
            choices.append(_of_scale(case, fit, held_out, recipe, *found))
    return min(choices, key=lambda choice: choice.error)


def _of_scale(
    case: Case,
    fit: SecondMoments,
    held_out: SecondMoments,
    recipe: Recipe,
    scale: Vector | None,
    power: float | None,
) -> Choice:
    """The best rounding of each weight once its channels are scaled."""
    moments = fit if scale is None else fit.scaled(scale)
    wide = case if scale is None else _scaled(case, scale)
    shared = None
    if recipe.method in ("auto", "gptq"):
        shared = Compensations.of(moments, recipe.damping, ordered=recipe.act_order)
    layers = (
        _best(wide, list(_tried(wide, weight, grid, moments, recipe, shared)), at, held_out, scale)
        for at, (weight, grid) in enumerate(_pairs(wide))
    )
    return Choice(scale, power, tuple(layers))


def _tried(
    case: Case,
    weight: Matrix,
    grid: Grid,
    moments: SecondMoments,
    recipe: Recipe,
    shared: Compensations | None,
) -> Iterator[Rounding]:
    zeros = None
    if grid.moved:
        steps, zeros = shifted(weight, grid, moments.diagonal)
    else:
        steps = searched(weight, grid, moments.diagonal)
    steps = case.stored(steps)
    if recipe.method == "auto":
        yield _nearest(case, weight, grid)
    if recipe.method in ("auto", "awq"):
        yield Rounding(nearest(weight, steps, grid, zeros), steps, "awq", zeros=zeros)
    if shared is not None:
        levels, fitted = rounded(weight, steps, grid, shared, case.stored, zeros)
        yield Rounding(levels, fitted, "gptq", zeros=zeros)


def _nearest(case: Case, weight: Matrix, grid: Grid) -> Rounding:
    zeros = None
    if grid.moved:
        steps, zeros = spanning(weight, grid)
    else:
        steps = reaching(weight, grid)
    steps = case.stored(steps)
    return Rounding(nearest(weight, steps, grid, zeros), steps, "rtn", zeros=zeros)


def _best(
    case: Case, tried: Sequence[Rounding], at: int, held_out: SecondMoments, scale: Vector | None
) -> Rounding:
    known = [replace(each, error=_error(case, each, at, held_out, scale)) for each in tried]
    return min(known, key=lambda each: each.error or 0.0)


def _error(
    case: Case, made: Rounding, at: int, held_out: SecondMoments, scale: Vector | None
) -> float:
    """The error of a rounding over the output, on the held-out samples."""
    moments = held_out if scale is None else held_out.scaled(scale)
    weight = case.weights[at]
    wrong = lacking(weight, made.levels, made.steps, case.grids[at], moments)
    return wrong / max(moments.power(weight), 1e-20)


def _measured(case: Case, choice: Choice, held_out: SecondMoments, scale: Vector | None) -> Choice:
    layers = (
        replace(each, error=_error(case, each, at, held_out, scale))
        for at, each in enumerate(choice.layers)
    )
    return replace(choice, layers=tuple(layers))


def _scaled(case: Case, scale: Vector) -> Case:
    return replace(case, weights=tuple(weight * scale[:, None] for weight in case.weights))


def _pairs(case: Case) -> Iterator[tuple[Matrix, Grid]]:
    return zip(case.weights, case.grids, strict=True)
