"""What is kept of an activation: its channels' extremes, a histogram, a sample of its rows.

Streamed: memory depends on the model and the size of the sample, not on how much was seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .. import CalibrationError
from .forward import Arrays
from .histogram import Histogram

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """Statistics of an activation [..., k] over all real rows.

    `low`, `high`, `mean` are per channel [k]; `sample` [r, k] is a uniform draw of rows;
    `importance` [r] is what an error in each weighs: 1 over the variance of the stream that the
    row is added to.
    """

    rows: int
    low: Vector
    high: Vector
    mean: Vector
    histogram: Histogram
    sample: Matrix
    importance: Vector


@dataclass(frozen=True)
class Watched:
    """An activation to watch: its name, its stream's, and whether its rows are tokens.

    Where `tokens` is true its leading dimensions are those of the mask, batch x sequence.
    """

    tensor: str
    stream: str | None = None
    tokens: bool = True


class Reservoir:
    """A uniform draw of `size` of all rows offered, by random keys: the least keys stay."""

    def __init__(self, size: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        # beyond every key of a row, the greatest first: empty places fill from the front
        self._keys: NDArray[np.float64] = 2.0 + np.arange(size, 0, -1, dtype=np.float64)

    def offer(self, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of so many new rows stay, and the places they take."""
        fresh = self._random.random(rows)
        size = len(self._keys)
        kept = np.argsort(np.concatenate([self._keys, fresh]), kind="stable")[:size]
        rows_in = np.sort(kept[kept >= size] - size)
        free = np.setdiff1d(np.arange(size), kept[kept < size], assume_unique=True)
        self._keys[free] = fresh[rows_in]
        return rows_in, free


@dataclass
class _Tally:
    """Statistics of one activation, growing."""

    watched: Watched
    size: int
    rows: int = 0
    low: Vector = field(default_factory=lambda: np.zeros(0, np.float32))
    high: Vector = field(default_factory=lambda: np.zeros(0, np.float32))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    histogram: Histogram | None = None
    sample: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    importance: Vector = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, x: Matrix) -> None:
        """Count rows [r, k]; `sample` is filled by `keep`."""
        low, high = x.min(axis=0), x.max(axis=0)
        total, seen = x.sum(axis=0, dtype=np.float64), Histogram.of(x)
        if self.histogram is None:
            self.low, self.high, self.total, self.histogram = low, high, total, seen
            self.sample = np.zeros((self.size, x.shape[1]), np.float32)
            self.importance = np.ones(self.size, np.float32)
        else:
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
            self.total += total
            self.histogram = self.histogram + seen
        self.rows += len(x)

    def seen(self) -> Seen:
        """What was counted."""
        kept = min(self.rows, self.size)
        assert self.histogram is not None
        return Seen(
            rows=self.rows,
            low=self.low,
            high=self.high,
            mean=(self.total / max(self.rows, 1)).astype(np.float32),
            histogram=self.histogram,
            sample=self.sample[:kept],
            importance=self.importance[:kept],
        )


def collect(
    runs: Iterable[tuple[Arrays, NDArray[np.bool_] | None]],
    watched: Iterable[Watched],
    *,
    size: int,
    seed: int,
) -> Mapping[str, Seen]:
    """Statistics of every watched activation over runs: its arrays, and which tokens are real.

    `size` rows of each are kept, the same tokens of all that have tokens for rows.

    Raises:
        CalibrationError: an activation is not a number; tensor and sample are named. Or nothing
            was seen.
    """
    tallies = [_Tally(each, size) for each in watched]
    reservoirs: dict[str, Reservoir] = {}
    for index, (arrays, real) in enumerate(runs):
        offers: dict[tuple[str, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        for tally in tallies:
            each = tally.watched
            x = rows_of(arrays[each.tensor], real if each.tokens else None)
            _check_finite(x, each, arrays[each.tensor], index)
            if not len(x):
                continue
            tally.add(x)
            space = "tokens" if each.tokens else each.tensor
            if (space, len(x)) not in offers:
                reservoir = reservoirs.setdefault(space, Reservoir(size, seed))
                offers[space, len(x)] = reservoir.offer(len(x))
            _keep(tally, x, arrays, real, *offers[space, len(x)])
    if any(not tally.rows for tally in tallies):
        raise CalibrationError("no sample has a single token", mend="give samples with text")
    return {tally.watched.tensor: tally.seen() for tally in tallies}


def rows_of(array: NDArray[np.generic], real: NDArray[np.bool_] | None) -> Matrix:
    """An activation [..., k] as float32 rows [r, k], those of padding left out."""
    rows = array.reshape(-1, array.shape[-1])
    if real is not None and real.size == len(rows) and not real.all():
        rows = rows[real.reshape(-1)]
    return rows.astype(np.float32, copy=False)


def _keep(
    tally: _Tally,
    x: Matrix,
    arrays: Arrays,
    real: NDArray[np.bool_] | None,
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
) -> None:
    tally.sample[places] = x[rows]
    stream = arrays.get(tally.watched.stream or "")
    if stream is None:
        return
    added = rows_of(stream, real if tally.watched.tokens else None)
    if len(added) == len(x):
        tally.importance[places] = 1 / np.maximum(added[rows].var(axis=1), 1e-12)


def _check_finite(x: Matrix, each: Watched, array: NDArray[np.generic], index: int) -> None:
    if np.isfinite(x.sum(dtype=np.float64)):
        return
    bad = np.argwhere(~np.isfinite(array.reshape(array.shape[0], -1)).all(axis=1))
    if not len(bad):
        return
    raise CalibrationError(
        "the float model gives NaN or Inf",
        where=f"tensor {each.tensor}, sample {int(bad[0, 0])} of batch {index}",
        mend="leave that sample out, or check the checkpoint",
    )
