"""What a pass promises about numbers, and how the promise is checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: How far the rounding of one place may grow through the layers after it. Each place is held to its
#: own tolerance; at the outputs float32 then has 1e-4, what the parity of a float stage allows too.
GROWTH = 5
#: Elements that are compared at once.
AT_ONCE = 1 << 20

Outputs = Mapping[str, NDArray[np.generic]]
Kind = Literal["exact", "close", "lossy"]


@dataclass(frozen=True)
class Contract:
    """`exact`: equal bits. `close`: within a tolerance. `lossy`: within a budget.

    `tolerance` is the greatest allowed |after - before| / max|before| of one output, by numpy's
    dtype name; a dtype that is not listed (integers, booleans) must stay equal. `by_place` has
    the manager hold a pass that records no rules to it place by place (beside.py).
    """

    kind: Kind
    tolerance: Mapping[str, float] = field(default_factory=dict[str, float])
    by_place: bool = False

    def allowed(self, dtype: np.dtype[np.generic]) -> float:
        """The tolerance for outputs of this dtype."""
        return 0.0 if self.kind == "exact" else self.tolerance.get(dtype.name, 0.0)

    def grown(self) -> "Contract":
        """What holds at the outputs of a whole model: rounding grows through its layers.

        A budget is that of the outputs already.
        """
        if self.kind == "lossy":
            return self
        return replace(self, tolerance={name: GROWTH * t for name, t in self.tolerance.items()})


EXACT = Contract("exact")
#: Other order of the same sums: some units in the last place.
CLOSE = Contract("close", {"float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2, "float64": 1e-12})
#: Equal bits as far as they can be seen on a CPU of 16 bits: ONNX Runtime computes them in float32,
#: and where it rounds in between depends on nodes that compute nothing.
SEEN = Contract("close", {"float32": 2e-3, "float16": 2e-3, "bfloat16": 2e-2})


@dataclass(frozen=True)
class Difference:
    """The worst output of a comparison; `error` is |after - before| / max|before|."""

    tensor: str
    error: float
    allowed: float

    @property
    def broken(self) -> bool:
        """Whether the contract does not hold; an error that is not a number breaks it."""
        return not self.error <= self.allowed


def compare(contract: Contract, before: Outputs, after: Outputs) -> Difference:
    """The output that strays the furthest beyond (or nearest to) its tolerance."""
    missing = [name for name in before if name not in after]
    if missing:
        return Difference(missing[0], float("inf"), 0.0)
    found = [
        Difference(name, error(array, after[name]), contract.allowed(array.dtype))
        for name, array in before.items()
    ]
    if not found:
        return Difference("", 0.0, 0.0)
    return max(found, key=lambda item: (item.broken, item.error))


def error(before: NDArray[np.generic], after: NDArray[np.generic]) -> float:
    """max|after - before| / max|before| over the finite elements of one array.

    Infinite when shapes, dtypes or the places of NaN and infinities differ; 0.0 only when every
    element is equal.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        return float("inf")
    if np.array_equal(before, after):
        return 0.0
    if not _floating(before):
        return float("inf")
    scale = worst = 0.0
    for one, two in _parts(before, after):
        finite = np.isfinite(one)
        if not np.array_equal(one[~finite], two[~finite], equal_nan=True) or not np.all(
            np.isfinite(two[finite])
        ):
            return float("inf")
        scale = max(scale, float(np.abs(one[finite]).max(initial=0.0)))
        worst = max(worst, float(np.abs(two[finite] - one[finite]).max(initial=0.0)))
    return worst / scale if scale else (0.0 if worst == 0 else float("inf"))


def _parts(
    before: NDArray[np.generic], after: NDArray[np.generic]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Both in float64, some elements at a time: of the logits of a batch all would be much."""
    one, two = before.reshape(-1), after.reshape(-1)
    for start in range(0, one.size, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        yield one[part].astype(np.float64), two[part].astype(np.float64)


def _floating(array: NDArray[np.generic]) -> bool:
    # ml_dtypes' bfloat16 and float8 are of kind V: numpy does not know them as floating.
    return array.dtype.kind in "fV"
