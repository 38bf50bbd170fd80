"""Whether two models decide alike: of classes and of next tokens, beyond how near numbers are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ParityError

Array = NDArray[Any]
#: Logits that are compared at once: several arrays of them in float64 are made.
AT_ONCE = 1 << 20


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


def logits(reference: Array, candidate: Array, k: int = 5) -> list[Agreement]:
    """Compare logits [..., classes], some rows at a time; the agreement of each time.

    Raises:
        ParityError: shapes differ, or something is not finite.
    """
    if reference.shape != candidate.shape:
        what = f"logits {candidate.shape} cannot be held against {reference.shape}"
        raise ParityError(what)
    return [_part(*pair, k) for pair in _blocks(reference, candidate)]


def joined(parts: Sequence[Agreement]) -> Agreement:
    """The agreement over the places of all parts.

    Raises:
        ParityError: there is none.
    """
    if not parts:
        raise ParityError("no logits to compare")
    places = sum(part.places for part in parts)

    def mean(name: str) -> float:
        return float(sum(getattr(part, name) * part.places for part in parts) / places)

    first = parts[0]
    return Agreement(
        places=places,
        classes=first.classes,
        argmax=mean("argmax"),
        top_k=mean("top_k"),
        k=first.k,
        kl_mean=mean("kl_mean"),
        kl_max=max(part.kl_max for part in parts),
    )


def _part(before: NDArray[np.float64], after: NDArray[np.float64], k: int) -> Agreement:
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


def _blocks(
    before: Array, after: Array
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Rows in float64, a few at a time: over a large vocabulary all would not fit in memory."""
    classes = before.shape[-1]
    before, after = (side.reshape(-1, classes) for side in (before, after))
    rows = max(1, AT_ONCE // max(1, classes))
    for start in range(0, len(before), rows):
        one, two = (side[start : start + rows].astype(np.float64) for side in (before, after))
        if not (np.isfinite(one).all() and np.isfinite(two).all()):
            raise ParityError("logits hold NaN or Inf")
        yield one, two


def _overlap(before: NDArray[np.float64], after: NDArray[np.float64], k: int) -> float:
    one, two = (np.argpartition(-side, k - 1, axis=1)[:, :k] for side in (before, after))
    return float(np.mean((one[:, :, None] == two[:, None, :]).any(2)))


def _kl(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    p, q = _log_softmax(before), _log_softmax(after)
    return np.maximum((np.exp(p) * (p - q)).sum(1), 0.0)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
