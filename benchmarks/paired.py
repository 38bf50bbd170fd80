"""Sessions timed in turn, and one against another by the ratios of their turns.

What disturbs a turn (another program, the clock of the processor) disturbs its neighbours too: it
cancels in a ratio, and in neither's own median.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Turns that every session gets, and runs of a turn.
ROUNDS, BURST = 60, 4
#: The ends of an interval that holds 95 of 100.
INTERVAL = (2.5, 97.5)
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, ours over theirs, between its bounds at 95 %."""

    median: float
    low: float
    high: float

    @property
    def call(self) -> str:
        """Whether ours is `ahead` or `behind` beyond noise, else `equal`."""
        return "ahead" if self.high < 1 else "behind" if self.low > 1 else "equal"

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f} {self.high:.2f}]"


def rounds(runs: Mapping[str, Callable[[], object]], count: int = ROUNDS) -> dict[str, Times]:
    """Milliseconds of a run of each, one number a turn, the order of each round drawn anew.

    It is the processor time of this thread: sessions of one thread run in it.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    names, shuffle = list(runs), random.Random(0)
    for index in range(-1, count):
        shuffle.shuffle(names)
        for name in names:
            started = time.thread_time()
            for _ in range(BURST):
                runs[name]()
            if index >= 0:  # the first round warms up
                taken[name].append((time.thread_time() - started) * 1e3 / BURST)
    return {name: np.array(times) for name, times in taken.items()}


def ratio(ours: Times, theirs: Times) -> Ratio:
    """Ours against theirs, round by round (Efron's bootstrap of the median)."""
    shares = ours / theirs
    draws = np.random.default_rng(0).integers(0, len(shares), (1000, len(shares)))
    low, high = np.percentile(np.median(shares[draws], axis=1), INTERVAL)
    return Ratio(*(round(float(each), 4) for each in (np.median(shares), low, high)))
