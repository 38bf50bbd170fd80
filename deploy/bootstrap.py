"""A paired bootstrap: how far a score moved, and whether the data can tell (Efron, 1979)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .labelled import Labelled
from .metrics import Metric, finite

Verdict = Literal["holds", "fails", "cannot tell"]


@dataclass(frozen=True)
class Scores:
    """A reference's and a candidate's score on the same items.

    `change` is relative to the reference, positive where the candidate is better; `low` and
    `high` bound it at `confidence`.
    """

    metric: str
    reference: float
    candidate: float
    change: float
    low: float
    high: float
    confidence: float
    items: int
    texts: int
    resamples: int
    seed: int

    def verdict(self, max_drop: float) -> Verdict:
        """Whether the interval shows that the relative drop is within `max_drop`."""
        if self.low >= -max_drop:
            return "holds"
        return "fails" if self.high < -max_drop else "cannot tell"


def paired(
    metric: Metric,
    data: Labelled,
    reference: Sequence[NDArray[Any]],
    candidate: Sequence[NDArray[Any]],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score both models' outputs of `data.texts` and bound the change by resampling.

    Both are scored on the same draws. Items that share texts are drawn by text, since pairs
    of one text are not independent.

    Raises:
        ParityError: an output or a score is no finite number.
    """
    before, after = metric.predictions(data, reference), metric.predictions(data, candidate)
    random = np.random.default_rng(seed)
    changes = np.empty(resamples)
    for index in range(resamples):
        drawn = draw(data, random)
        gold = data.gold[drawn]
        scores = (metric.statistic(side[drawn], gold) for side in (before, after))
        changes[index] = _change(*scores, lower=metric.lower)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(changes, [tail, 100 - tail])
    first, second = (finite(metric, metric.statistic(each, data.gold)) for each in (before, after))
    return Scores(
        metric=metric.name,
        reference=first,
        candidate=second,
        change=_change(first, second, lower=metric.lower),
        low=float(low),
        high=float(high),
        confidence=confidence,
        items=len(data.gold),
        texts=len(data.texts),
        resamples=resamples,
        seed=seed,
    )


def draw(data: Labelled, random: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the items of one resample, with repetition."""
    if not data.shared:
        return random.integers(0, len(data.gold), len(data.gold))
    count = len(data.texts)
    times = np.bincount(random.integers(0, count, count), minlength=count)
    left, right = data.pairs.T
    return np.repeat(np.arange(len(data.gold)), times[left] * times[right])


def _change(reference: float, candidate: float, *, lower: bool) -> float:
    gain = reference - candidate if lower else candidate - reference
    return gain / abs(reference) if reference else gain
