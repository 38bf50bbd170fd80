"""Smoothing strength and range of an activation, by the error they cause at layers' outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .histogram import Histogram
from .observers import LEVELS, Entropy, MeanSquare, MinMax, Observer, Percentile
from .rounding import LEAST, rounded, rounded_weight
from .statistics import Matrix, Seen, Vector

#: Strengths of SmoothQuant that are tried; None leaves the activation as it is.
STRENGTHS = (None, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
#: Observers that `auto` tries on the smoothed activation.
TRIED: Mapping[str, Observer] = {
    "min-max": MinMax(),
    "percentile": Percentile(99.99),
    "percentile-99.999": Percentile(99.999),
    "mse": MeanSquare(),
    "entropy": Entropy(),
}
#: Output channels of a layer that errors are measured on, at most.
COLUMNS = 768


@dataclass(frozen=True)
class Freedom:
    """What an activation's place in the graph allows.

    `shift`: a shift a channel, one for all, or none. `repeat` heads of `width` channels must
    share their scale. `smooth` is false where nothing may be scaled.
    """

    shift: Literal["channel", "scalar", "none"] = "none"
    repeat: int = 1
    width: int = 0
    smooth: bool = True


@dataclass(frozen=True)
class Choice:
    """How an activation is quantised: ((x - shift) / scale) in steps of amax / 127.

    `scale` and `shift` are [k], None where there are none. `errors` holds, a layer, the squared
    error over the variance of its output.
    """

    strength: float | None
    scale: Vector | None
    shift: Vector | None
    amax: float
    observer: str
    errors: tuple[float, ...]

    @property
    def step(self) -> float:
        """The step of the activation's INT8."""
        return step_of(self.amax)

    def apply(self, x: Matrix) -> Matrix:
        """Rows as they come before rounding."""
        moved = x if self.shift is None else x - self.shift
        return moved if self.scale is None else moved / self.scale


def step_of(amax: float) -> float:
    """The step whose 127 multiples reach amax, as the float32 that the graph will hold."""
    return float(np.float32(max(amax, LEAST) / LEVELS))


@dataclass(frozen=True)
class Case:
    """One activation under trial: its statistics, its layers' weights [k, n], held-out rows."""

    seen: Seen
    weights: tuple[Matrix, ...]
    freedom: Freedom
    rows: Matrix
    importance: Vector

    @classmethod
    def of(cls, seen: Seen, held_out: Seen, weights: Sequence[Matrix], freedom: Freedom) -> "Case":
        """Rows are the held-out ones; weights are thinned to `COLUMNS` columns each."""
        thin = tuple(_thinned(weight) for weight in weights)
        weight = held_out.importance / held_out.importance.mean()
        return cls(seen, thin, freedom, held_out.sample, weight)


def _thinned(weight: Matrix) -> Matrix:
    columns = weight.shape[1]
    if columns <= COLUMNS:
        return weight
    chosen = np.random.default_rng(0).choice(columns, COLUMNS, replace=False)
    return np.ascontiguousarray(weight[:, np.sort(chosen)])


def choose(case: Case, observers: Mapping[str, Observer] | None = None) -> Choice:
    """The strength with the least error under min-max, then the observer with the least.

    `observers` restricts the ranges that are tried; all of `TRIED` by default.
    """
    strengths = STRENGTHS if case.freedom.smooth else (None,)
    smoothed = [_smoothed(case, strength) for strength in strengths]
    best = min((evaluated(case, choice) for choice in smoothed), key=_loss)
    histogram = Histogram.of(best.apply(case.seen.sample))
    histogram = Histogram(histogram.counts, histogram.exponent, best.amax)
    ranged = [
        evaluated(case, _with_range(best, min(observer.amax(histogram), best.amax), name))
        for name, observer in (observers or TRIED).items()
    ]
    return min(ranged, key=_loss)


def _loss(choice: Choice) -> float:
    return sum(choice.errors)


def _with_range(choice: Choice, amax: float, observer: str) -> Choice:
    made = Choice(choice.strength, choice.scale, choice.shift, amax, observer, ())
    return _aligned(made)


def _smoothed(case: Case, strength: float | None) -> Choice:
    """Scale, shift and min-max range of one strength."""
    seen, freedom = case.seen, case.freedom
    low, high = seen.low, seen.high
    if strength is None:
        return Choice(None, None, None, float(np.maximum(-low, high).max()), "min-max", ())
    shift = (low + high) / 2 if freedom.shift == "channel" else np.zeros_like(low)
    low, high = low - shift, high - shift
    scale = _scale(np.maximum(-low, high), case.weights, strength, freedom)
    low, high = low / scale, high / scale
    if freedom.shift == "scalar":
        middle = np.float32((float(low.min()) + float(high.max())) / 2)
        shift, low, high = middle * scale, low - middle, high - middle
    amax = float(np.maximum(-low, high).max())
    made = Choice(strength, scale, shift if freedom.shift != "none" else None, amax, "min-max", ())
    return _aligned(made)


def _scale(peaks: Vector, weights: Sequence[Matrix], strength: float, freedom: Freedom) -> Vector:
    """Give peak(x)^a / size(w)^(1 - a), its geometric mean 1; dead channels keep 1."""
    squares = np.mean([(w.astype(np.float64) ** 2).mean(axis=1) for w in weights], axis=0)
    tops = peaks.astype(np.float64)
    if freedom.repeat > 1:
        tops = _alike(tops, freedom, np.max)
        squares = _alike(squares, freedom, np.mean)
    sizes = np.sqrt(squares)
    live = (tops > 1e-7) & (sizes > 1e-9)
    scale = np.ones_like(tops)
    scale[live] = tops[live] ** strength / sizes[live] ** (1 - strength)
    if live.any():
        scale[live] /= np.exp(np.log(scale[live]).mean())
    return np.clip(scale, 1e-4, 1e4).astype(np.float32)


def _alike(
    vector: NDArray[np.float64], freedom: Freedom, over: Callable[..., NDArray[np.float64]]
) -> NDArray[np.float64]:
    """One value for the channels of all heads that share their values."""
    heads = vector.reshape(-1, freedom.repeat, freedom.width)
    return np.broadcast_to(over(heads, axis=1, keepdims=True), heads.shape).reshape(-1)


def _aligned(choice: Choice) -> Choice:
    """A shift that is one number after scaling becomes a whole number of steps.

    A backend can then put it into the zero point of its unsigned activations, exactly.
    """
    if choice.shift is None or choice.scale is None:
        return choice
    moved = choice.shift / choice.scale
    if np.ptp(moved) > 1e-5 * max(float(np.abs(moved).max()), LEAST):
        return choice
    step = step_of(choice.amax)
    whole = np.float32(round(float(moved.mean(dtype=np.float64)) / step) * step)
    shift = (whole * choice.scale).astype(np.float32)
    return Choice(choice.strength, choice.scale, shift, choice.amax, choice.observer, choice.errors)


def evaluated(case: Case, choice: Choice) -> Choice:
    """The choice with its errors on the held-out rows, each layer's weights to the nearest."""
    x = choice.apply(case.rows)
    q = rounded(x, choice.step)
    errors = tuple(
        relative_error(case.rows, q, weight, choice, case.importance) for weight in case.weights
    )
    return Choice(choice.strength, choice.scale, choice.shift, choice.amax, choice.observer, errors)


def relative_error(
    rows: Matrix, q: Matrix, weight: Matrix, choice: Choice, importance: Vector
) -> float:
    """Squared error of a layer's output over its variance, rows weighed, the mean taken off.

    The mean error is taken off because the bias makes up for it.
    """
    scaled = weight if choice.scale is None else weight * choice.scale[:, None]
    wanted = rows @ weight
    error = wanted - q @ rounded_weight(scaled)
    return _variance(error, importance) / max(_variance(wanted, importance), LEAST)


def _variance(y: NDArray[Any], importance: Vector) -> float:
    weigh = importance[:, None]
    centred = y - (y * weigh).mean(axis=0)
    return float((weigh * centred * centred).mean(dtype=np.float64))
