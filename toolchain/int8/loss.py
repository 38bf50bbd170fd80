"""What INT8 costs at a model's outputs, as one number, by numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration import Feed

Array = NDArray[Any]
#: Rows narrower than this have no direction to speak of.
NARROW = 16
#: Of fewer rows one cannot tell what of a narrow output is its mean, and what is said.
FEW = 8
UNSURE = f"too few held-out rows: under {FEW} of so narrow an output"
#: Rows of logits whose divergence is taken at once: a vocabulary of float64 is wide.
AT_ONCE = 64


@dataclass(frozen=True)
class Loss:
    """The mean loss of the outputs' rows against float's, the worst output's; padding left out.

    `logits` are outputs whose rows are distributions: their loss is the divergence of Kullback
    and Leibler from float's, about how much the perplexity grows, and other outputs do not count
    beside them. One logit, a regression's or a reranker's, is no distribution. Of all other rows
    it is 1 - the cosine; of outputs narrower than `NARROW`, whose rows have no direction to speak
    of, 1 - the cosine of all rows as one, about float's mean; of fewer than `FEW` such rows half
    their error over their size, which for small errors is the same about 0. `mask` names the input
    whose zeros are padding.
    """

    logits: tuple[str, ...] = ()
    mask: str | None = None

    def __call__(
        self,
        before: Sequence[Mapping[str, Array]],
        after: Sequence[Mapping[str, Array]],
        feeds: Sequence[Feed],
    ) -> float:
        """The loss over all feeds."""
        real = self._real(feeds)
        names = self.kept(before[0])
        return max((self._output(name, before, after, real) for name in names), default=0.0)

    def unsure(self, outputs: Sequence[Mapping[str, Array]], feeds: Sequence[Feed]) -> str:
        """Why the loss of such outputs is no cosine, empty where it is one."""
        real = self._real(feeds)
        kept = self.kept(outputs[0])
        names = [name for name, array in kept.items() if not self._distributed(name, array)]
        return UNSURE if any(_few(_all(name, outputs, real)) for name in names) else ""

    def _real(self, feeds: Sequence[Feed]) -> list[NDArray[np.bool_] | None]:
        return [np.asarray(feed[self.mask]) != 0 if self.mask else None for feed in feeds]

    def kept(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs that count."""
        floats = {name: array for name, array in outputs.items() if _counts(array)}
        logits = {name: floats[name] for name in self.logits if name in floats}
        return logits or floats

    def _distributed(self, name: str, array: Array) -> bool:
        return name in self.logits and array.shape[-1] > 1

    def _output(
        self,
        name: str,
        before: Sequence[Mapping[str, Array]],
        after: Sequence[Mapping[str, Array]],
        real: Sequence[NDArray[np.bool_] | None],
    ) -> float:
        if self._distributed(name, before[0][name]):
            parts = [
                divergence(rows(one[name], mask), rows(two[name], mask))
                for one, two, mask in zip(before, after, real, strict=True)
            ]
            return float(np.concatenate(parts).mean())
        one, two = (_all(name, found, real) for found in (before, after))
        if _few(one):
            return lacking(one, two)
        found = cosines(one, two)
        return 1 - float(found.mean()) if len(found) else 0.0


def _counts(array: Array) -> bool:
    return array.dtype.kind == "f" and array.ndim >= 2


def _all(
    name: str, outputs: Sequence[Mapping[str, Array]], real: Sequence[NDArray[np.bool_] | None]
) -> Array:
    """The rows [r, k] of an output over all feeds; a number a token is a row, as of an answer's
    start and end, whose last axis is as long as the texts.
    """
    arrays = [each[name] for each in outputs]
    if len({array.shape[-1] for array in arrays}) > 1:
        numbers = (_numbers(*pair) for pair in zip(arrays, real, strict=True))
        return np.concatenate([each.reshape(-1, 1) for each in numbers])
    return np.concatenate([rows(*pair) for pair in zip(arrays, real, strict=True)])


def _numbers(array: Array, mask: NDArray[np.bool_] | None) -> Array:
    """Those of real tokens."""
    return array[mask] if mask is not None and mask.shape == array.shape else array


def _few(array: Array) -> bool:
    """Whether rows are so narrow, and so few or alike, that nothing is known of their spread."""
    return array.shape[1] < NARROW and (len(array) < FEW or not np.ptp(array, axis=0).any())


def lacking(one: Array, two: Array) -> float:
    """Half the squared error of rows over their squares."""
    one, two = one.astype(np.float64), two.astype(np.float64)
    return float(np.square(one - two).sum() / max(np.square(one).sum(), 1e-30)) / 2


def divergence(one: Array, two: Array) -> NDArray[np.float64]:
    """KL(one || two) of rows of logits, in nats, [rows]."""
    parts = [
        _divergence(one[start : start + AT_ONCE], two[start : start + AT_ONCE])
        for start in range(0, len(one), AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _divergence(one: Array, two: Array) -> NDArray[np.float64]:
    # in place: a vocabulary is wide, and exponents are most of what a trial takes
    first, second = (_below_the_top(each) for each in (one, two))
    parted = first - second
    weights = np.exp(first, out=first)
    total, other = weights.sum(axis=1), np.exp(second, out=second).sum(axis=1)
    return np.multiply(weights, parted, out=parted).sum(axis=1) / total + np.log(other / total)


def _below_the_top(x: Array) -> NDArray[np.float64]:
    moved = x.astype(np.float64)
    moved -= moved.max(axis=1, keepdims=True)
    return moved


def cosines(one: Array, two: Array) -> NDArray[np.float64]:
    """The cosine of each pair of rows; rows of zeros, the empty places of a cache, are left out.

    Of narrow ones, about the mean of the first, one for all: a shift of the second's turns it.
    """
    one, two = one.astype(np.float64), two.astype(np.float64)
    if one.shape[1] < NARROW and len(one):
        middle = one.mean(axis=0)
        one, two = ((each - middle).reshape(1, -1) for each in (one, two))
    real = np.linalg.norm(one, axis=1) > 0
    one, two = one[real], two[real]
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return (one * two).sum(axis=1) / np.maximum(sizes, 1e-30)


def rows(array: Array, mask: NDArray[np.bool_] | None) -> Array:
    """Rows [r, k] of an output, of real tokens where they are tokens.

    [batch, sequence, k] and [batch, heads, sequence, k] have the mask's last tokens for rows.
    """
    if mask is not None and array.ndim in (3, 4) and mask.ndim == 2:
        turned = array if array.ndim == 3 else array.swapaxes(1, 2)
        width = turned.shape[1]
        if turned.shape[0] == len(mask) and 0 < width <= mask.shape[1]:
            array = turned[mask[:, -width:]]
    return array.reshape(-1, array.shape[-1])
