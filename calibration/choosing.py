"""Smoothing strength and range of an activation, by the error they cause at layers' outputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .case import Case, Choice, Freedom, centred, mean_square, step_of
from .histogram import Histogram
from .learning import Terms, learn
from .observers import Entropy, MeanSquare, MinMax, Observer, Percentile
from .outlying import find_outliers, without
from .rounding import LEAST, rounded, rounded_weight
from .statistics import Matrix, Seen, Vector

#: Strengths of SmoothQuant that are tried, then those beside the best.
STRENGTHS, BESIDE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0), 0.05
#: Observers that `auto` tries on the smoothed activation.
TRIED: Mapping[str, Observer] = {
    "min-max": MinMax(),
    "percentile": Percentile(99.99),
    "percentile-99.999": Percentile(99.999),
    "mse": MeanSquare(),
    "entropy": Entropy(),
}
#: Outlier channels are looked for where a layer's error is above this (30 dB).
NOISY = 1e-3


def choose(case: Case, observers: Mapping[str, Observer] | None = None) -> Choice:
    """Scale, outlier channels and learned scales, then the observer, by the error they leave.

    What costs time whenever the model runs must lower the error by as much as `Freedom` asks.
    `observers` restricts the ranges that are tried; all of `TRIED` by default.
    """
    ways = list(_ways(case))
    case, best = min(ways, key=lambda way: _price(way[1], case.freedom))
    if best.strength is not None:
        best = min(best, evaluated(case, _learned(case, best)), key=_loss)
    histogram = replace(Histogram.of(best.apply(case.seen.sample)), peak=best.amax)
    weights = rounded_weights(case, best)
    ranges = ((name, observer.amax(histogram)) for name, observer in (observers or TRIED).items())
    tried = [_with_range(best, min(amax, best.amax), name) for name, amax in ranges]
    return min((evaluated(case, choice, weights) for choice in tried), key=_loss)


def _ways(case: Case) -> Iterator[tuple[Case, Choice]]:
    """Unscaled and scaled, each with all channels and without the outliers where it is noisy.

    Where scales cost less than outliers, these are taken out beside scales alone.
    """
    free = case.freedom
    scales, cheaper = free.smooth and free.scaling > 0, free.scaling < free.picking
    for scaled in dict.fromkeys((False, scales)):
        best = _best_strength(case) if scaled else _unscaled(case)
        yield case, best
        asked = free.apart and free.picking > 0 and (scaled or not scales or cheaper)
        outliers = find_outliers(case) if asked and max(best.errors) > NOISY else ()
        if outliers:
            other = without(case, outliers)
            apart = _best_strength(other) if scaled else _unscaled(other)
            yield other, replace(apart, outliers=outliers)


def _price(choice: Choice, freedom: Freedom) -> float:
    """The error of a choice, over what each thing that costs time must be worth."""
    scaling = freedom.scaling if choice.strength is not None else 1.0
    return _loss(choice) / (scaling * (freedom.picking if choice.outliers else 1.0))


def covering(choice: Choice, held_out: Seen) -> Choice:
    """A min-max choice whose range covers the held-out rows too, now that they have decided."""
    if choice.observer != "min-max":
        return choice
    ends = choice.apply(np.stack([held_out.low, held_out.high]))
    ends[:, list(choice.outliers)] = 0
    return _with_range(choice, max(choice.amax, float(np.abs(ends).max())), choice.observer)


def _unscaled(case: Case) -> Choice:
    """As it is, or moved: that costs nothing where a zero point or a norm's beta takes it."""
    plain = evaluated(case, _smoothed(case, None))
    if case.freedom.shift == "none" or not case.freedom.smooth:
        return plain
    moved = evaluated(case, _ranged(case, np.ones_like(case.seen.low)))
    return min(plain, moved, key=_loss)


def _best_strength(case: Case) -> Choice:
    """Under min-max, of `STRENGTHS` and then of those beside the best."""
    best = min((evaluated(case, _smoothed(case, each)) for each in STRENGTHS), key=_loss)
    middle = best.strength or 0.0
    beside = (middle - BESIDE, min(middle + BESIDE, 1.0))
    return min(best, *(evaluated(case, _smoothed(case, each)) for each in beside), key=_loss)


def _loss(choice: Choice) -> float:
    return sum(choice.errors)


def _with_range(choice: Choice, amax: float, observer: str) -> Choice:
    return _aligned(replace(choice, amax=amax, observer=observer))


def _smoothed(case: Case, strength: float | None) -> Choice:
    """Scale, shift and min-max range of one strength."""
    low, high = case.seen.low, case.seen.high
    if strength is None:
        return Choice(None, None, None, float(np.maximum(-low, high).max()), "min-max", ())
    shift = (low + high) / 2 if case.freedom.shift == "channel" else np.zeros_like(low)
    peaks = np.maximum(shift - low, high - shift)
    scale = _scale(peaks, case.weights, strength, case.freedom)
    return replace(_ranged(case, scale), strength=strength)


def _ranged(case: Case, scale: Vector) -> Choice:
    """Shift and min-max range of a scale."""
    low, high, freedom = case.seen.low, case.seen.high, case.freedom
    shift = (low + high) / 2 if freedom.shift == "channel" else np.zeros_like(low)
    low, high = (low - shift) / scale, (high - shift) / scale
    if freedom.shift == "scalar":
        middle = np.float32((float(low.min()) + float(high.max())) / 2)
        shift, low, high = middle * scale, low - middle, high - middle
    amax = float(np.maximum(-low, high).max())
    moved = shift if freedom.shift != "none" else None
    return _aligned(Choice(None, scale, moved, amax, "min-max", ()))


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


def _learned(case: Case, start: Choice) -> Choice:
    """The choice with scales learned from its own on."""
    assert start.scale is not None
    seen, sizes = case.seen, [n * p for n, p in zip(_widths(case), case.power, strict=True)]
    parts = [w / np.sqrt(size) for w, size in zip(case.weights, sizes, strict=True)]
    terms = Terms(
        low=seen.low.astype(np.float64),
        high=seen.high.astype(np.float64),
        variance=seen.variance.astype(np.float64),
        weights=np.concatenate(parts, axis=1).astype(np.float64),
        shift=case.freedom.shift,
    )
    scale = learn(terms, start.scale.astype(np.float64))
    if case.freedom.repeat > 1:
        scale = np.exp(_alike(np.log(scale), case.freedom, np.mean))
    made = scale / np.exp(np.log(scale).mean())
    choice = _ranged(case, np.clip(made, 1e-4, 1e4).astype(np.float32))
    return replace(choice, strength=start.strength, learned=True, outliers=start.outliers)


def _widths(case: Case) -> list[int]:
    return [weight.shape[1] for weight in case.weights]


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
    return replace(choice, shift=(whole * choice.scale).astype(np.float32))


def rounded_weights(case: Case, choice: Choice) -> list[Matrix]:
    """The layers' weights in INT8, each to the nearest, as floats."""
    scale = None if choice.scale is None else choice.scale[:, None]
    return [rounded_weight(w if scale is None else w * scale) for w in case.weights]


def evaluated(case: Case, choice: Choice, weights: Sequence[Matrix] | None = None) -> Choice:
    """The choice with its errors on the held-out rows.

    A mean error is taken off: the bias makes up for it.
    """
    q = rounded(choice.apply(case.rows), choice.step)
    pairs = zip(case.wanted, weights or rounded_weights(case, choice), case.power, strict=True)
    wrong = ((centred(y - q @ w, case.importance), power) for y, w, power in pairs)
    errors = tuple(mean_square(y, case.importance) / power for y, power in wrong)
    return replace(choice, errors=errors)
