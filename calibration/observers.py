"""Observers: from a histogram of |x| to the range that INT8 shall cover.

An observer is a frozen record with `amax(histogram) -> float`; third parties offer theirs under
the entry point `llmdeploy.observers`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .histogram import BINS, Histogram

#: Positive steps of symmetric INT8.
LEVELS = 127


class Observer(Protocol):
    """Chooses the greatest |x| that is not cut off."""

    def amax(self, histogram: Histogram) -> float:
        """The range [-amax, amax]; positive if anything but zeros was seen."""
        ...


@dataclass(frozen=True)
class MinMax:
    """Nothing is cut off."""

    def amax(self, histogram: Histogram) -> float:
        """The greatest |x|."""
        return histogram.peak


@dataclass(frozen=True)
class Percentile:
    """`percent` of the values are not cut off; near 100 for transformers (arXiv 2004.09602)."""

    percent: float = 99.99

    def amax(self, histogram: Histogram) -> float:
        """The upper edge of the bin in which the percentile lies."""
        wanted = histogram.total * self.percent / 100
        index = int(np.searchsorted(np.cumsum(histogram.counts), wanted))
        return min((index + 1) * histogram.width, histogram.peak)


@dataclass(frozen=True)
class MeanSquare:
    """The range with the least expected squared error of rounding and cutting off."""

    def amax(self, histogram: Histogram) -> float:
        """The best of 96 ranges between 0.1 and 1 of the greatest |x|."""
        centres = (np.arange(BINS) + 0.5) * histogram.width
        ranges = histogram.peak * np.linspace(1.0, 0.1, 96)
        errors = [_square_error(centres, histogram.counts, amax) for amax in ranges]
        return float(ranges[int(np.argmin(errors))])


def _square_error(centres: NDArray[np.floating], counts: NDArray[np.int64], amax: float) -> float:
    step = amax / LEVELS
    cut = np.maximum(centres - amax, 0.0)
    rounding = np.where(centres <= amax, step * step / 12, 0.0)
    return float(((cut * cut + rounding) * counts).sum())


@dataclass(frozen=True)
class Entropy:
    """The range whose 128 levels keep the distribution of |x| best, by Kullback and Leibler.

    S. Migacz, 8-bit inference with TensorRT, GTC 2017. Made for CNNs; poor on transformers.
    """

    def amax(self, histogram: Histogram) -> float:
        """The best of the ranges that end at a bin from 128 on."""
        used = int(histogram.counts.nonzero()[0].max(initial=0)) + 1
        ends = range(min(LEVELS + 1, used), used + 1, max(1, used // 128))
        if not ends or used <= LEVELS + 1:
            return histogram.peak
        losses = [_divergence(histogram.counts, end) for end in ends]
        return min(ends[int(np.argmin(losses))] * histogram.width, histogram.peak)


def _divergence(counts: NDArray[np.int64], end: int) -> float:
    p = counts[:end].astype(np.float64)
    kept = p > 0
    bucket = np.minimum(np.arange(end) * (LEVELS + 1) // end, LEVELS)
    sums = np.bincount(bucket, weights=p, minlength=LEVELS + 1)
    sizes = np.bincount(bucket, weights=kept, minlength=LEVELS + 1)
    q = np.where(kept, sums[bucket] / np.maximum(sizes[bucket], 1), 0.0)
    p[-1] += counts[end:].sum()
    live = (p > 0) & (q > 0)
    if not live.any() or (p[~live] > 0).any():
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    return float((p[live] * np.log(p[live] / q[live])).sum())
