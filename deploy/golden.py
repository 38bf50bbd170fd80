"""Whether an engine's outputs agree with golden ones: numpy alone, for where Polygraphy is not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Tolerance

Arrays = Mapping[str, NDArray[Any]]


def agree(wanted: Arrays, given: Arrays, tolerance: Tolerance) -> tuple[bool, str]:
    """Whether every output is there, of its shape and dtype, finite and within the tolerance.

    The second value gives the figures in words. What is not floating point must be equal.
    """
    if wanted.keys() != given.keys():
        return False, f"outputs {sorted(given)} instead of {sorted(wanted)}"
    found = {name: _compare(name, wanted[name], given[name], tolerance) for name in wanted}
    return all(ok for ok, _ in found.values()), "; ".join(words for _, words in found.values())


def _compare(
    name: str, wanted: NDArray[Any], given: NDArray[Any], tolerance: Tolerance
) -> tuple[bool, str]:
    """Whether one output is within the tolerance, with the figures in words."""
    if wanted.shape != given.shape or wanted.dtype != given.dtype:
        return False, f"{name} is {given.dtype}{given.shape}, not {wanted.dtype}{wanted.shape}"
    if wanted.dtype.kind != "f":
        same = np.array_equal(wanted, given)
        return same, f"{name} is {'equal' if same else 'not equal'}"
    one, other = wanted.astype(np.float64).ravel(), given.astype(np.float64).ravel()
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return False, f"{name} has a NaN or Inf"
    error, cosine = relative_error(one, other), cosine_of(one, other)
    least, most = tolerance.min_cosine, tolerance.max_relative_error
    ok = (most is None or error <= most) and (least is None or cosine >= least)
    return ok, f"{name}: relative error {error:.3g}, cosine {cosine:.6f}"


def relative_error(wanted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    """Largest |given - wanted| / largest |wanted|; of nothing, 0."""
    scale = float(np.abs(wanted).max(initial=0.0))
    error = float(np.abs(given - wanted).max(initial=0.0))
    return error / scale if scale else (float("inf") if error else 0.0)


def cosine_of(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Cosine of two flat arrays; 1 where both are zero, 0 where one is."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else float(np.array_equal(one, other))
