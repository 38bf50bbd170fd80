"""Symmetric INT8 by numpy: activations a tensor, weights an output channel, and both as floats."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .observers import LEVELS
from .pairs import Room

Matrix = NDArray[np.float32]
#: A scale is never 0: TensorRT refuses it, and a dead channel needs none.
LEAST = 1e-12


def rounded(x: Matrix, step: float) -> Matrix:
    """What symmetric INT8 of this step makes of x: round half to even, clamp to [-128, 127]."""
    levels = np.rint(x * np.float32(1 / step))
    return np.clip(levels, -LEVELS - 1, LEVELS, out=levels) * np.float32(step)


def steps_of(weight: Matrix) -> NDArray[np.float32]:
    """The step of each output channel [n] of a weight [k, n] whose extremes are kept."""
    peaks = np.abs(weight).max(axis=0) / LEVELS
    return np.maximum(peaks, LEAST).astype(np.float32)


def nearest(weight: Matrix, steps: NDArray[np.float32]) -> NDArray[np.int8]:
    """The nearest int8 of a weight [k, n]."""
    return np.clip(np.rint(weight / steps), -LEVELS, LEVELS).astype(np.int8)


def rounded_weight(weight: Matrix) -> Matrix:
    """What per-channel INT8 with the nearest values makes of a weight [k, n]."""
    steps = steps_of(weight)
    return nearest(weight, steps) * steps


@dataclass(frozen=True)
class Compensation:
    """Channels in order of their size, and the upper U [k, k], U'U the inverse of the moments."""

    order: NDArray[np.int64]
    factor: Matrix

    @classmethod
    def of(
        cls, second: NDArray[np.float64], damping: float = 0.01, *, ordered: bool = True
    ) -> "Compensation":
        """From the second moments [k, k] of a layer's input; in its own order unless `ordered`."""
        size = -second.diagonal() if ordered else np.zeros(len(second))
        order = np.argsort(size, kind="stable")
        factor = _factor(second[np.ix_(order, order)], damping)
        return cls(order, factor.astype(np.float32, order="C"))


def compensated(
    weight: Matrix,
    steps: NDArray[np.float32],
    compensation: Compensation,
    *,
    paired: bool = False,
) -> NDArray[np.int8]:
    """Int8 of a weight [k, n] where later channels make up for the rounding of earlier ones.

    GPTQ, arXiv 2210.17323. `paired` keeps neighbours along k within what 16 bits hold (`pairs`).
    Zeros stay zero: they are the pattern of a sparse weight.
    """
    order, factor = compensation.order, compensation.factor
    left, levels = weight[order], np.empty(weight.shape, np.int8)
    there = left != 0
    room, width = Room.of(*weight.shape) if paired else None, 64

    def level(row: int) -> Matrix:
        nearest = np.clip(np.rint(left[row] / steps), -LEVELS, LEVELS) * there[row]
        return nearest if room is None else room.take(int(order[row]), nearest)

    for start in range(0, len(left), width):
        end = min(start + width, len(left))
        errors = np.empty((end - start, left.shape[1]), np.float32)
        for row in range(start, end):
            levels[row] = (taken := level(row)).astype(np.int8)
            error = (left[row] - taken * steps) / factor[row, row]
            left[row:end] -= factor[row, row:end, None] * error
            errors[row - start] = error
        left[end:] -= factor[start:end, end:].T @ errors
    result = np.empty_like(levels)
    result[order] = levels
    return result


def _factor(damped: NDArray[np.float64], damping: float) -> NDArray[Any]:
    """The factor of moments that are damped in their place: a wide layer's take much memory."""
    damped[np.diag_indices_from(damped)] += max(damping * float(damped.diagonal().mean()), 1e-12)
    # inv(H) = U'U from the Cholesky factor of H reversed: no inverse is formed
    try:
        lower = np.linalg.cholesky(damped[::-1, ::-1])
    except np.linalg.LinAlgError:  # of a signal that rounding drowned, only the variances are left
        lower = np.diag(np.sqrt(np.maximum(damped.diagonal()[::-1], 1e-12)))
    return np.linalg.inv(lower)[::-1, ::-1]
