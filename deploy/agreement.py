"""Whether two models decide alike: of classes and of next tokens, beyond how near numbers are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ParityError

Array = NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """Over `places` rows of logits: shares in [0, 1], divergence in nats.

    `argmax` is the share of rows with the same greatest class, `top_k` the mean share of the k
    greatest that both have, `kl_mean` and `kl_max` are KL(reference || candidate).
    """

    places: int
    classes: int
    argmax: float
    top_k: float
    k: int
    kl_mean: float
    kl_max: float


def logits(
    reference: Sequence[Array],
    candidate: Sequence[Array],
    valid: Sequence[Array] | None = None,
    k: int = 5,
) -> Agreement:
    """Compare logits [..., classes], feed by feed; `valid` [...] is a bool mask of real places.

    Raises:
        ParityError: shapes differ, or nothing is left to compare.
    """
    before, after = _rows(reference, valid), _rows(candidate, valid)
    if before.shape != after.shape or not before.size:
        raise ParityError(f"logits {after.shape} cannot be held against {before.shape}")
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ParityError("logits hold NaN or Inf")
    top = min(k, before.shape[1])
    kl = _kl(before, after)
    return Agreement(
        places=len(before),
        classes=before.shape[1],
        argmax=float(np.mean(before.argmax(1) == after.argmax(1))),
        top_k=_overlap(before, after, top),
        k=top,
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
    )


def prefix(reference: Sequence[Array], candidate: Sequence[Array]) -> float:
    """The mean share of each generated sequence of tokens that is the same from its start on.

    Raises:
        ParityError: there are not as many sequences, or none.
    """
    if len(reference) != len(candidate) or not reference:
        raise ParityError(f"{len(candidate)} sequences for {len(reference)}")
    return float(np.mean([_same(*pair) for pair in zip(reference, candidate, strict=True)]))


def _same(one: Array, two: Array) -> float:
    longest = max(one.size, two.size)
    shared = min(one.size, two.size)
    differs = np.flatnonzero(one.ravel()[:shared] != two.ravel()[:shared])
    return (int(differs[0]) if differs.size else shared) / longest if longest else 1.0


def _rows(results: Sequence[Array], valid: Sequence[Array] | None) -> NDArray[np.float64]:
    masks = valid if valid is not None else [None] * len(results)
    kept = [
        array.reshape(-1, array.shape[-1]) if mask is None else array[mask.astype(bool)]
        for array, mask in zip(results, masks, strict=True)
    ]
    return np.concatenate(kept).astype(np.float64) if kept else np.empty((0, 0))


def _overlap(before: NDArray[np.float64], after: NDArray[np.float64], k: int) -> float:
    one, two = (np.argpartition(-side, k - 1, axis=1)[:, :k] for side in (before, after))
    return float(np.mean((one[:, :, None] == two[:, None, :]).any(2)))


def _kl(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    p, q = _log_softmax(before), _log_softmax(after)
    return np.maximum((np.exp(p) * (p - q)).sum(1), 0.0)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
