"""Scales learned for an activation's channels: the least expected error of both roundings.

With x / s rounded in steps D and s w in steps d_n, each rounding wrong by a twelfth of its squared
step, a layer's outputs are wrong by

    D^2 / 12 * sum_k s_k^2 |w_k|^2  +  sum_n d_n^2 / 12 * sum_k var(x_k) / s_k^2

where D and d_n follow from the greatest |x_k| / s_k and s_k |w_kn|. The greatest is taken by a
p-norm, which has a gradient; Adam (arXiv 1412.6980) descends it in log s.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .observers import LEVELS

Floats = NDArray[np.float64]
#: The power of the norm that stands for a maximum, and Adam's steps.
POWER, STEPS, RATE = 24.0, 100, 0.04
#: Columns of the weights that learning looks at.
COLUMNS = 192


@dataclass(frozen=True)
class Terms:
    """What the expected error is made of; weights [k, n] are over the root of n times variance.

    `low`, `high`, `variance` [k] are the activation's. `weight_share` is how much of the weights'
    error is expected to stay: rounding that makes up for itself leaves less.
    """

    low: Floats
    high: Floats
    variance: Floats
    weights: Floats
    shift: Literal["channel", "scalar", "none"]
    weight_share: float = 0.5


def learn(terms: Terms, start: Floats) -> Floats:
    """Scales [k] from `start` [k] on; dead channels keep theirs."""
    live = np.maximum(-terms.low, terms.high) > 1e-7
    seen, share = _columns(terms.weights)
    log_weights = np.log(np.maximum(np.abs(seen), 1e-12)).astype(np.float32)
    norms = np.square(terms.weights).sum(axis=1)
    log_scale = np.log(start)
    first, second = np.zeros_like(log_scale), np.zeros_like(log_scale)
    for step in range(1, STEPS + 1):
        slope = np.where(live, gradient(terms, log_weights, norms, log_scale, share), 0.0)
        first = 0.9 * first + 0.1 * slope
        second = 0.99 * second + 0.01 * slope * slope
        moved = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        log_scale -= RATE * (1.0 if step < 0.6 * STEPS else 0.3) * moved
    return np.exp(log_scale)


def _columns(weights: Floats) -> tuple[Floats, float]:
    """Some columns of the weights, and how many times as many there are."""
    columns = weights.shape[1]
    if columns <= COLUMNS:
        return weights, 1.0
    chosen = np.random.default_rng(0).choice(columns, COLUMNS, replace=False)
    return weights[:, np.sort(chosen)], columns / COLUMNS


def gradient(
    terms: Terms,
    log_weights: NDArray[np.float32],
    norms: Floats,
    log_scale: Floats,
    times: float = 1.0,
) -> Floats:
    """The gradient of the logarithm of the expected error by log s, [k].

    `norms` [k] are of all weights, `log_weights` [k, n] some of their columns, of `times` as many.
    """
    scale = np.exp(log_scale)
    step, step_slope = _step(terms, scale)
    moved = log_weights + log_scale.astype(np.float32)[:, None]
    squares, squares_slope = (times * each for each in _weight_steps(moved))
    noise, spread = scale * scale * norms, terms.variance / (scale * scale)
    activation = step * step / 12 * noise.sum()
    weight = terms.weight_share * squares / 12 * spread.sum()
    slope = activation * 2 * step_slope + step * step / 6 * noise
    slope += terms.weight_share / 12 * (squares_slope * spread.sum() - 2 * squares * spread)
    return slope / max(activation + weight, 1e-300)


def _step(terms: Terms, scale: Floats) -> tuple[float, Floats]:
    """D, and its relative slope by log s."""
    if terms.shift == "scalar":
        above, below = _peak(terms.high / scale), _peak(-terms.low / scale)
        whole = above[0] + below[0]
        slope = -(above[0] * above[1] + below[0] * below[1]) / max(whole, 1e-300)
        return whole / 2 / LEVELS, slope
    if terms.shift == "channel":
        ranges = (terms.high - terms.low) / 2
    else:
        ranges = np.maximum(-terms.low, terms.high)
    peak, share = _peak(ranges / scale)
    return peak / LEVELS, -share


def _peak(values: Floats) -> tuple[float, Floats]:
    """A p-norm of what is positive, and each value's share in its slope."""
    top = float(values.max())
    if top <= 0:
        return 0.0, np.zeros_like(values)
    powers = (np.maximum(values, 0.0) / top) ** POWER
    total = powers.sum()
    return float(top * total ** (1 / POWER)), powers / total


def _weight_steps(logs: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """The sum of d_n^2 of weights given by their logs [k, n], and its slope by log s [k]."""
    top = logs.max(axis=0)
    logs -= top
    powers = np.exp(np.multiply(logs, np.float32(POWER), out=logs), out=logs)
    total = powers.sum(axis=0)
    squares = (np.exp(top) * total ** (1 / POWER) / LEVELS) ** 2
    slope = 2 * (powers @ (squares / total))
    return squares.sum(dtype=np.float64), slope.astype(np.float64)
