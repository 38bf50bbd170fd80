"""A histogram of |x| that grows with its range without looking at the data again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Bins; after growing at least half of them are in use.
BINS = 4096
#: Values that are counted at once: few enough to stay in a core's own cache.
AT_ONCE = 16384


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
        flat = np.asarray(values, np.float32).reshape(-1)
        peak = float(max(flat.max(initial=0.0), -flat.min(initial=0.0)))
        exponent = exponent_for(peak)
        scale, counts = np.float32(2.0**-exponent), np.zeros(BINS, np.int64)
        for start in range(0, flat.size, AT_ONCE):
            sizes = np.abs(flat[start : start + AT_ONCE] * scale)
            found = np.bincount(sizes.astype(np.intp), minlength=BINS)
            counts += found[:BINS]
            counts[-1] += found[BINS:].sum()
        return cls(counts, exponent, peak)

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
