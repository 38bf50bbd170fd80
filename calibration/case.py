"""One activation under trial: what its place allows, what was seen, how it is quantised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .observers import LEVELS
from .rounding import LEAST
from .statistics import Matrix, Seen, Vector

#: Output channels of a layer, and held-out rows, that errors are measured on, at most.
COLUMNS, ROWS = 1024, 512


@dataclass(frozen=True)
class Freedom:
    """What an activation's place in the graph allows.

    `shift`: a shift a channel, one for all, or none. `repeat` heads of `width` channels must
    share their scale. `smooth` is false where nothing may be scaled, `apart` where no outlier
    channel may stay in float by itself. `scaling` and `picking` say what part of the error scales
    and outlier channels may leave to be taken: the less, the more time they cost at every run.
    """

    shift: Literal["channel", "scalar", "none"] = "none"
    repeat: int = 1
    width: int = 0
    smooth: bool = True
    apart: bool = True
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

    def cut_off(self, x: Matrix) -> NDArray[np.bool_]:
        """Which elements of rows [r, k] lie beyond the last levels, -128 and 127."""
        levels = self.apply(x) / np.float32(self.step)
        beyond = (levels > LEVELS + 0.5) | (levels < -LEVELS - 1.5)
        beyond[:, list(self.outliers)] = False
        return beyond


def step_of(amax: float) -> float:
    """The step whose 127 multiples reach amax, as the float32 that the graph will hold."""
    return float(np.float32(max(amax, LEAST) / LEVELS))


@dataclass(frozen=True)
class Case:
    """One activation under trial: its statistics, its layers' weights [k, n], held-out rows.

    `wanted` are the layers' float outputs [r, n] for those rows, each centred, `power` their
    variances; rows count by `importance` [r, 1].
    """

    seen: Seen
    weights: tuple[Matrix, ...]
    freedom: Freedom
    rows: Matrix
    importance: Matrix
    wanted: tuple[Matrix, ...]
    power: tuple[float, ...]

    @classmethod
    def of(cls, seen: Seen, held_out: Seen, weights: Sequence[Matrix], freedom: Freedom) -> "Case":
        """Rows are the held-out ones; weights are thinned to `COLUMNS` columns each."""
        thin, rows = tuple(_thinned(weight) for weight in weights), held_out.sample[:ROWS]
        importance = held_out.importance[:ROWS, None] / held_out.importance[:ROWS].mean()
        wanted = tuple(centred(rows @ weight, importance) for weight in thin)
        power = tuple(max(mean_square(y, importance), LEAST) for y in wanted)
        return cls(seen, thin, freedom, rows, importance, wanted, power)


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
