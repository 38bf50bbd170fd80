"""A histogram of |x| that grows with its range without looking at the data again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Bins; after growing at least half of them are in use.
BINS = 4096


@dataclass(frozen=True)
class Histogram:
    """Counts of |x| in `BINS` bins of one width, a power of two; `peak` is the exact maximum.

    Widths that are powers of two make growing exact: two neighbours become one bin.
    """

    counts: NDArray[np.int64]
    exponent: int
    peak: float

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> "Histogram":
        """The histogram of an array of any shape."""
        sizes = np.abs(values, dtype=np.float32).reshape(-1)
        peak = float(sizes.max(initial=0.0))
        exponent = exponent_for(peak)
        index = (sizes * np.float32(2.0**-exponent)).astype(np.int32)
        counts = np.bincount(np.minimum(index, BINS - 1), minlength=BINS)
        return cls(counts.astype(np.int64), exponent, peak)

    @property
    def width(self) -> float:
        """The width of a bin."""
        return 2.0**self.exponent

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def grown(self, exponent: int) -> "Histogram":
        """The same counts in bins 2 ** (exponent - self.exponent) times as wide."""
        times = 2 ** min(exponent - self.exponent, 12)
        if times == 1:
            return self
        merged = np.zeros_like(self.counts)
        merged[: BINS // times] = self.counts.reshape(-1, times).sum(axis=1)
        return Histogram(merged, exponent, self.peak)

    def __add__(self, other: "Histogram") -> "Histogram":
        exponent = max(self.exponent, other.exponent)
        counts = self.grown(exponent).counts + other.grown(exponent).counts
        return Histogram(counts, exponent, max(self.peak, other.peak))


def exponent_for(peak: float) -> int:
    """The least e for which `peak` lies in `BINS` bins of width 2 ** e; -120 at the least."""
    if peak <= 0:
        return -120
    _, exponent = np.frexp(peak)
    return max(int(exponent) - int(np.log2(BINS)), -120)
