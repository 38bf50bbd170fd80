"""What each width of each group costs at the model's outputs, measured one group at a time."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...calibration.moments import Moments
from ...calibration.removal import Order, refitted
from .subject import Choice, Level
from .trial import Changed, Trial

#: Losses below this are rounding.
LEAST = 1e-9


def changed(choice: Choice, level: Level, seen: Moments, weight: NDArray[np.float64]) -> Changed:
    """A consumer's weight [k, n] at a level, rows of what goes being zero, and its bias's gain.

    The weights are the least squares of the layer's own output over what was seen.
    """
    gram, _ = seen.centred()
    kept = np.flatnonzero(np.isin(choice.group.labels, level.kept))
    made = np.zeros_like(weight)
    if len(kept):
        made[kept] = refitted(gram, gram @ weight, weight, kept, seen.rows)
    mean, _ = seen.means()
    return made, mean @ (weight - made)


class Losses:
    """Measures losses until the time is up, and tells the rest from the layers' own errors."""

    def __init__(
        self, trial: Trial, seen: Mapping[str, Moments], weights: Mapping[str, NDArray[np.float64]]
    ) -> None:
        self._trial, self._seen, self._weights = trial, seen, weights
        self._folder = trial.folder

    def changed(self, choice: Choice, at: int) -> Changed:
        """A group's consumer at one of its levels."""
        name = choice.group.consumer
        path = self._folder / f"{name}.{at}.npz".replace("/", "_")
        if not path.exists():
            made = changed(choice, choice.levels[at], self._seen[name], self._weights[name])
            np.savez(path, weight=made[0].astype(np.float32), offset=made[1])
        with np.load(path) as found:
            return found["weight"], found["offset"]

    def joint(self, choices: Sequence[Choice], widths: Mapping[str, int]) -> float:
        """The loss with every group at its level."""
        made = {
            each.group.consumer: self.changed(each, widths[each.group.consumer])
            for each in choices
            if widths[each.group.consumer]
        }
        return self._trial.loss(made)

    def of(self, choice: Choice, order: Order, every: int) -> tuple[float, ...]:
        """The loss at each level, measured at every so many, the others by the layer's error."""
        last = len(choice.levels) - 1
        places = sorted({*range(last, 0, -every)})
        name = choice.group.consumer
        found = {
            at: max(self._trial.loss({name: self.changed(choice, at)}), LEAST) for at in places
        }
        errors = [_error(order, level) for level in choice.levels]
        xs = np.log([errors[at] for at in places])
        ys = np.log([found[at] for at in places])
        told = [0.0, *(float(np.exp(_between(np.log(e), xs, ys))) for e in errors[1:])]
        return tuple(np.maximum.accumulate(told).tolist())


def _error(order: Order, level: Level) -> float:
    gone = len(order.units) - level.units
    return max(order.errors[gone - 1], 1e-30) if gone else 1e-30


def _between(x: float, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> float:
    """Straight between what was measured, in logarithms; with slope 1 beyond."""
    if x < xs[0]:
        return float(ys[0] - (xs[0] - x))
    return float(np.interp(x, xs, ys))


def every(groups: int, levels: int, seconds_a_run: float, budget: float) -> int:
    """Of how many levels one is measured so that all groups' take no more than the budget."""
    affordable = max(1.0, budget / max(seconds_a_run * groups, 1e-9))
    return max(1, int(np.ceil((levels - 1) / affordable)))


def timed(trial: Trial) -> float:
    """Seconds that one measurement takes."""
    started = time.perf_counter()
    trial.loss({})
    return time.perf_counter() - started
