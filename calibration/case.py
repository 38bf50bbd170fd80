"""One activation under trial: what its place allows, what was seen, how it is quantised."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .observers import LEVELS
from .rounding import LEAST
from .statistics import Matrix, Seen, Vector

#: Output channels of a layer, and held-out rows, that errors are measured on, at most.
COLUMNS, ROWS = 1024, 512
#: Parts of a range that are tried.
NARROWER = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.32, 0.25)


@dataclass(frozen=True)
class Freedom:
    """What an activation's place in the graph allows.

    `shift`: a shift a channel, one for all, or none. `repeat` heads of `width` channels must
    share their scale. `smooth` is false where nothing may be scaled, `apart` where no outlier
    channel may stay in float by itself. `clip` is false where a range must not leave out what is
    rare. `scaling` and `picking` say what part of the error scales
    and outlier channels may leave to be taken: the less, the more time they cost at every run.
    """

    shift: Literal["channel", "scalar", "none"] = "none"
    repeat: int = 1
    width: int = 0
    smooth: bool = True
    apart: bool = True
    clip: bool = True
    scaling: float = 1.0
    picking: float = 0.7


@dataclass(frozen=True)
class Choice:
    """How an activation is quantised: ((x - shift) / scale) in steps of amax / 127.

    `strength` is SmoothQuant's, of the scale itself or of the one that learning began with.
    `scale` and `shift` are [k], None where there are none; `outliers` are channels that stay in
    float, unscaled. `errors` holds, a layer, the squared error over the variance of its output.
    """

    strength: float | None
    scale: Vector | None
    shift: Vector | None
    amax: float
    observer: str
    errors: tuple[float, ...]
    learned: bool = False
    outliers: tuple[int, ...] = ()

    @property
    def step(self) -> float:
        """The step of the activation's INT8."""
        return step_of(self.amax)

    def apply(self, x: Matrix) -> Matrix:
        """Rows as they come before rounding."""
        moved = x if self.shift is None else x - self.shift
        return moved if self.scale is None else moved / self.scale


def step_of(amax: float) -> float:
    """The step whose 127 multiples reach amax, as the float32 that the graph will hold."""
    return float(np.float32(max(amax, LEAST) / LEVELS))


@dataclass(frozen=True)
class Case:
    """One activation under trial: its statistics, its layers' weights [k, n], held-out rows.

    `wanted` are the layers' float outputs [r, n] for those rows, each centred, `power` their
    variances; rows count by `importance` [r, 1]. `low` and `high` [k] are the extremes of all
    `count` rows that were seen, the held-out ones too.
    """

    seen: Seen
    weights: tuple[Matrix, ...]
    freedom: Freedom
    rows: Matrix
    importance: Matrix
    wanted: tuple[Matrix, ...]
    power: tuple[float, ...]
    low: Vector
    high: Vector
    count: int

    @classmethod
    def of(cls, seen: Seen, held_out: Seen, weights: Sequence[Matrix], freedom: Freedom) -> "Case":
        """Rows are the held-out ones; weights are thinned to `COLUMNS` columns each."""
        thin, rows = tuple(_thinned(weight) for weight in weights), held_out.sample[:ROWS]
        importance = held_out.importance[:ROWS, None] / held_out.importance[:ROWS].mean()
        wanted = tuple(centred(rows @ weight, importance) for weight in thin)
        power = tuple(max(mean_square(y, importance), LEAST) for y in wanted)
        low, high = np.minimum(seen.low, held_out.low), np.maximum(seen.high, held_out.high)
        count = seen.rows + held_out.rows
        return cls(seen, thin, freedom, rows, importance, wanted, power, low, high, count)

    @cached_property
    def gains(self) -> tuple[NDArray[np.float64], ...]:
        """What a square error in each input [k] adds to each layer's error."""
        return tuple(
            (weight.astype(np.float64) ** 2).mean(axis=1) / power
            for weight, power in zip(self.weights, self.power, strict=True)
        )

    def rare(self, choice: Choice) -> tuple[float, ...]:
        """What clipping each channel's extreme in one row of all adds to each layer's error.

        A sample of rows hardly has those: by it alone every rare value would be cut off, and to
        cover it whatever it costs the others would spend the range on one token.
        """
        ends = np.abs(choice.apply(np.stack([self.low, self.high]))).max(axis=0)
        over = np.maximum(ends - choice.amax, 0).astype(np.float64)
        over[list(choice.outliers)] = 0
        squares = (over if choice.scale is None else over * choice.scale) ** 2
        return tuple(float(squares @ gain) / max(self.count, 1) for gain in self.gains)

    def range_of(self, choice: Choice) -> float:
        """The part of the choice's range that should err least by what steps and clipping add.

        Errors of inputs are taken for independent, which they are not: it is a first guess.
        """
        gain = np.sum(self.gains, axis=0)
        gain = gain if choice.scale is None else gain * choice.scale.astype(np.float64) ** 2
        gain[list(choice.outliers)] = 0
        x = np.abs(choice.apply(self.rows))
        large = np.nonzero(x > choice.amax * NARROWER[-1])
        values = x[large].astype(np.float64)
        weights = self.importance[large[0], 0] * gain[large[1]] / len(x)

        def error(amax: float) -> float:
            clipped = float(weights @ np.maximum(values - amax, 0) ** 2)
            steps = step_of(amax) ** 2 / 12 * float(gain.sum())
            return steps + clipped + sum(self.rare(replace(choice, amax=amax)))

        return min((choice.amax * each for each in NARROWER), key=error)


def _thinned(weight: Matrix) -> Matrix:
    columns = weight.shape[1]
    if columns <= COLUMNS:
        return weight
    chosen = np.random.default_rng(0).choice(columns, COLUMNS, replace=False)
    return np.ascontiguousarray(weight[:, np.sort(chosen)])


def centred(y: NDArray[Any], importance: Matrix) -> Matrix:
    """Rows less their weighed mean."""
    return y - (y * importance).mean(axis=0, dtype=np.float32)


def mean_square(y: Matrix, importance: Matrix) -> float:
    """The weighed mean square of rows."""
    return float((y * y).mean(axis=1, dtype=np.float64) @ importance[:, 0]) / len(y)
