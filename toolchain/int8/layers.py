"""The int8 weights of layers, made one at a time and kept in a file beside the model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...calibration import (
    FORMATS,
    Calibrated,
    Choice,
    Compensation,
    Format,
    Formats,
    Kept,
    Range,
    compensated,
    nearest,
    pairs,
    side_by_side,
    steps_of,
)
from ...calibration.observers import LEVELS
from ...passes import load
from ...passes.outliers import Outliers
from ...passes.quantize import Int8
from ...passes.sites import Layer, find, weight_of
from ...passes.smooth import Smooth

#: Dampings of compensated rounding that are tried.
DAMPINGS = (0.01, 0.1)

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Rounded:
    """A layer in INT8, and the squared error at its output over its variance, on held-out rows.

    `damping` is that of the compensation, None where each weight went to the nearest.
    """

    layer: Layer
    int8: Int8
    error: float
    damping: float | None


@dataclass(frozen=True)
class Rows:
    """Rows of an activation as they come before and after rounding, and what each weighs."""

    x: Matrix
    q: Matrix
    importance: Matrix

    @classmethod
    def of(
        cls, choice: Choice, rows: Matrix, importance: NDArray[np.float32], kind: Format
    ) -> "Rows":
        """Smooth and round the rows of a sample."""
        x = choice.apply(rows)
        q = kind.rounded(x, kind.step(choice.amax))
        return cls(x, q, (importance / importance.mean())[:, None])

    def mean(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """The weighed mean of rows."""
        return (y * self.importance).mean(axis=0, dtype=np.float64)

    def power(self, y: NDArray[Any]) -> float:
        """The weighed mean square of rows."""
        return float((y * y).mean(axis=1, dtype=np.float64) @ self.importance[:, 0]) / len(y)


@dataclass(frozen=True)
class Rounding:
    """What all layers that read one activation share when their weights are rounded.

    `power` [k] is the mean square of each input as it is rounded.
    """

    test: Rows
    mean: NDArray[np.float64]
    cut: NDArray[np.float64]
    power: Matrix
    compensations: Mapping[float, Compensation]

    @classmethod
    def of(cls, choice: Choice, kept: Kept, kinds: Formats) -> "Rounding":
        """From a choice and what was kept of its activation."""
        fit = Rows.of(choice, kept.rows, kept.importance, kinds.activation)
        scale = np.ones_like(kept.mean) if choice.scale is None else choice.scale
        full = kept.moments.ndim == 2 and not kinds.weight.relative
        scale = scale.copy()
        scale[list(choice.outliers)] = np.inf  # they are not in the integer product
        moments = kept.moments / np.outer(scale, scale) if full else np.zeros((0, 0))
        return cls(
            test=Rows.of(choice, kept.held_out, kept.held_out_importance, kinds.activation),
            mean=choice.apply(kept.mean[None])[0].astype(np.float64),
            cut=fit.mean(fit.q - fit.x),
            power=fit.mean(fit.q * fit.q).astype(np.float32),
            compensations=_compensations(moments, choice, kinds.activation) if full else {},
        )

    def offset(self, weight: Matrix, values: Matrix) -> NDArray[np.float32]:
        """What an int8 weight's outputs lack on average, cut-off activations included [n]."""
        return (self.mean @ (weight - values) - self.cut @ values).astype(np.float32)

    def error(self, weight: Matrix, values: Matrix) -> float:
        """Squared error of an int8 weight's outputs over the variance of the float one's."""
        wanted = self.test.x @ weight
        wrong = wanted - self.test.q @ values - self.offset(weight, values)
        spread = wanted - self.test.mean(wanted).astype(np.float32)
        return self.test.power(wrong) / max(self.test.power(spread), 1e-12)


def _compensations(
    moments: NDArray[Any], choice: Choice, kind: Format
) -> dict[float, Compensation]:
    """By damping; rounding adds its noise to every variance."""
    noisy = moments.astype(np.float64)
    noisy += np.diag(kind.noise(kind.step(choice.amax), noisy.diagonal()))
    return {damping: Compensation.of(noisy, damping) for damping in DAMPINGS}


def smoothed(model: Path, calibrated: Calibrated) -> ir.Model:
    """The float graph with every activation smoothed as the calibration says."""
    graph = load(model)
    for item in float_passes(calibrated):
        graph = item(graph).model
    return graph


def float_passes(calibrated: Calibrated, keep: Collection[str] = ()) -> tuple[Smooth, Outliers]:
    """The passes that make the float graph ready: smoothed, outlier channels apart.

    Layers in `keep` stay in float whole.
    """
    choices = {name: each.choice for name, each in calibrated.ranges.items()}
    smooth = Smooth(
        scales={name: c.scale for name, c in choices.items() if c.scale is not None},
        shifts={name: c.shift for name, c in choices.items() if c.shift is not None},
    )
    apart = {
        node: each.choice.outliers
        for each in calibrated.ranges.values()
        for node in each.layers
        if each.choice.outliers and node not in keep
    }
    return smooth, Outliers(channels=apart)


def round_layers(
    model: Path,
    calibrated: Calibrated,
    scratch: Path,
    precision: str = "int8",
    *,
    paired: bool = False,
) -> Mapping[str, Rounded]:
    """Every layer of the calibration rounded; their bytes go to `scratch`, one layer at a time.

    `paired` keeps the products of two neighbours within 16 bits (`calibration.pairs`).
    """
    kinds = FORMATS[precision]
    graph = smoothed(model, calibrated)
    layers = {layer.node: layer for site in find(graph) for layer in site.layers}

    def of_one(each: Range) -> list[tuple[str, _Levels]]:
        rounding = Rounding.of(each.choice, calibrated.kept[each.tensor], kinds)
        weights = ((node, weight_of(graph, layers[node])) for node in each.layers)
        return [(node, _round(weight, rounding, kinds.weight, paired)) for node, weight in weights]

    made: dict[str, Rounded] = {}
    with scratch.open("wb") as file:
        for rounded_layers in side_by_side(of_one, calibrated.ranges.values()):
            for node, best in rounded_layers:
                stored = best.levels.T if layers[node].transposed else best.levels
                tensor = _tensor(scratch, file.tell(), stored.shape, node, kinds.weight)
                file.write(np.ascontiguousarray(stored).tobytes())
                step = kinds.activation.step(range_of(calibrated, node).choice.amax)
                kind = ir.DataType[kinds.activation.name]
                int8 = Int8(step, tensor, best.steps, best.offset, kind)
                made[node] = Rounded(layers[node], int8, best.error, best.damping)
    return made


@dataclass(frozen=True)
class _Levels:
    """A rounded weight [k, n], its steps, the bias that makes up for it, its error and damping."""

    levels: NDArray[Any]
    steps: NDArray[np.float32]
    offset: NDArray[np.float32]
    error: float
    damping: float | None


def _round(weight: Matrix, rounding: Rounding, kind: Format, paired: bool) -> _Levels:
    """The rounding that errs least on held-out rows."""
    if kind.relative:
        return _cast(weight, rounding, kind)
    steps = steps_of(weight)
    if paired:
        steps = pairs.steps_of(weight, steps, rounding.power)
    plain = nearest(weight, steps)
    tried: list[tuple[NDArray[np.int8], float | None]] = [
        (pairs.fitted(plain) if paired else plain, None)
    ]
    for damping, compensation in rounding.compensations.items():
        tried.append((compensated(weight, steps, compensation, paired=paired), damping))
    errors = [rounding.error(weight, levels * steps) for levels, _ in tried]
    best = int(np.argmin(errors))
    levels, damping = tried[best]
    return _Levels(levels, steps, rounding.offset(weight, levels * steps), errors[best], damping)


def _cast(weight: Matrix, rounding: Rounding, kind: Format) -> _Levels:
    """Each weight to the nearest float of a channel's scale."""
    steps = (steps_of(weight) * (LEVELS / kind.top)).astype(np.float32)
    levels = kind.stored(weight / steps)
    values = levels.astype(np.float32) * steps
    error = rounding.error(weight, values)
    return _Levels(levels, steps, rounding.offset(weight, values), error, None)


def _tensor(
    scratch: Path, place: int, shape: tuple[int, ...], node: str, kind: Format
) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        scratch.name,
        place,
        int(np.prod(shape)),
        ir.DataType[kind.name],
        shape=ir.Shape(shape),
        name=f"{node}.{kind.name.lower()}",
        base_dir=scratch.parent,
    )


def range_of(calibrated: Calibrated, node: str) -> Range:
    """The range of the activation that a layer reads."""
    return next(each for each in calibrated.ranges.values() if node in each.layers)
