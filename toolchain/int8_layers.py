"""The int8 weights of layers, made one at a time and kept in a file beside the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..calibration import Calibrated, Choice, Range, compensated, nearest, rounded, steps_of
from ..passes import load
from ..passes.quantize import Int8
from ..passes.sites import Layer, find, weight_of
from ..passes.smooth import Smooth

#: Wider inputs are rounded to the nearest: their second moments cost more than they give.
WIDEST = 4096

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Rounded:
    """A layer in INT8, and the squared error at its output over its variance, on held-out rows."""

    layer: Layer
    int8: Int8
    error: float
    compensated: bool


@dataclass(frozen=True)
class Rows:
    """Rows of an activation as they come before rounding, and what an error in each weighs."""

    x: Matrix
    q: Matrix
    importance: NDArray[np.float32]

    @classmethod
    def of(cls, choice: Choice, kept: tuple[Matrix, NDArray[np.float32]]) -> "Rows":
        """Smooth and round the rows of a sample."""
        x, importance = choice.apply(kept[0]), kept[1] / kept[1].mean()
        return cls(x, rounded(x, choice.step), importance[:, None])

    def mean(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """The weighed mean of rows."""
        return (y * self.importance).mean(axis=0, dtype=np.float64)

    def moments(self) -> NDArray[np.float64]:
        """The weighed covariance of the rounded rows [k, k]: the bias takes care of the mean."""
        centred = (self.q - self.mean(self.q)).astype(np.float32)
        return ((centred * self.importance).T @ centred).astype(np.float64) / len(centred)

    def error(self, weight: Matrix, int8: Matrix, offset: NDArray[np.float32]) -> float:
        """Squared error of an int8 weight's output over the variance of the float one's."""
        wanted = self.x @ weight
        wrong = wanted - self.q @ int8 - offset
        spread = wanted - self.mean(wanted)
        power = float((self.importance * spread * spread).mean(dtype=np.float64))
        return float((self.importance * wrong * wrong).mean(dtype=np.float64)) / max(power, 1e-12)


def smoothed(model: Path, calibrated: Calibrated) -> ir.Model:
    """The float graph with every activation smoothed as the calibration says."""
    graph = load(model)
    return smooth_pass(calibrated)(graph).model


def smooth_pass(calibrated: Calibrated) -> Smooth:
    """The pass that smooths as the calibration says."""
    choices = {name: each.choice for name, each in calibrated.ranges.items()}
    return Smooth(
        scales={name: c.scale for name, c in choices.items() if c.scale is not None},
        shifts={name: c.shift for name, c in choices.items() if c.shift is not None},
    )


def round_layers(model: Path, calibrated: Calibrated, scratch: Path) -> Mapping[str, Rounded]:
    """Every layer of the calibration in INT8; their bytes go to `scratch`, one layer at a time."""
    graph = smoothed(model, calibrated)
    layers = {layer.node: layer for site in find(graph) for layer in site.layers}
    made: dict[str, Rounded] = {}
    with scratch.open("wb") as file:
        for name, each in calibrated.ranges.items():
            fit = Rows.of(each.choice, calibrated.rows[name])
            test = Rows.of(each.choice, calibrated.held_out[name])
            moments = fit.moments() if fit.x.shape[1] <= WIDEST else None
            for node in each.layers:
                weight = weight_of(graph, layers[node])
                levels, steps, offset, error, won = _round(weight, fit, test, moments)
                place = file.tell()
                stored = levels.T if layers[node].transposed else levels
                file.write(np.ascontiguousarray(stored).tobytes())
                tensor = _tensor(scratch, place, stored.shape, node)
                int8 = Int8(each.choice.step, tensor, steps, offset)
                made[node] = Rounded(layers[node], int8, error, won)
    return made


def _round(
    weight: Matrix, fit: Rows, test: Rows, moments: NDArray[np.float64] | None
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32], float, bool]:
    """Levels, steps, bias offset and held-out error of the better of two roundings."""
    steps = steps_of(weight)
    tried = [(nearest(weight, steps), False)]
    if moments is not None:
        tried.append((compensated(weight, steps, moments), True))
    scored: list[tuple[float, int]] = []
    offsets: list[NDArray[np.float32]] = []
    for index, (levels, _) in enumerate(tried):
        values = levels * steps
        offsets.append(fit.mean(fit.x @ weight - fit.q @ values).astype(np.float32))
        scored.append((test.error(weight, values, offsets[-1]), index))
    error, best = min(scored)
    return tried[best][0], steps, offsets[best], error, tried[best][1]


def _tensor(scratch: Path, place: int, shape: tuple[int, ...], node: str) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        scratch.name,
        place,
        int(np.prod(shape)),
        ir.DataType.INT8,
        shape=ir.Shape(shape),
        name=f"{node}.int8",
        base_dir=scratch.parent,
    )


def range_of(calibrated: Calibrated, node: str) -> Range:
    """The range of the activation that a layer reads."""
    return next(each for each in calibrated.ranges.values() if node in each.layers)
