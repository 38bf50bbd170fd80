"""What is kept of an activation: its channels' extremes, a histogram, a sample of its rows.

Streamed: memory depends on the model and the size of the sample, not on how much was seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .. import CalibrationError
from .forward import Arrays
from .histogram import Histogram

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]
#: Which tokens are no padding, batch x sequence, where that is known.
_Real = NDArray[np.bool_] | None
#: Rows whose products are added at once.
AT_ONCE = 512
#: Rows that stay, and the places they take.
Places = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Seen:
    """Statistics of an activation [..., k] over all real rows.

    `low`, `high` are per channel [k]; `sample` [r, k] is a uniform draw of rows; `importance`
    [r] is what an error in each weighs: 1 over the variance of the stream that the row is added
    to. `mean` [k] and `moments` are so weighed; `moments` is the covariance [k, k] of the first
    rows, or the variances [k] where that would be too large.
    """

    rows: int
    low: Vector
    high: Vector
    mean: Vector
    moments: Matrix
    histogram: Histogram
    sample: Matrix
    importance: Vector

    @property
    def variance(self) -> Vector:
        """The weighed variances [k]."""
        return self.moments if self.moments.ndim == 1 else self.moments.diagonal()


@dataclass(frozen=True)
class Watched:
    """An activation to watch: its name, its stream's, and whether its rows are tokens.

    Where `tokens` is true its leading dimensions are those of the mask, batch x sequence, or
    where it is `turned` sequence x batch.
    """

    tensor: str
    stream: str | None = None
    tokens: bool = True
    turned: bool = False

    def mask(self, real: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Which of its rows are real, given which tokens are; None where all count."""
        if real is None or not self.tokens:
            return None
        return real.T if self.turned else real


class Reservoir:
    """A uniform draw of `size` of all rows offered, by random keys: the least keys stay."""

    def __init__(self, size: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        # beyond every key of a row, the greatest first: empty places fill from the front
        self._keys: NDArray[np.float64] = 2.0 + np.arange(size, 0, -1, dtype=np.float64)

    def offer(self, rows: int) -> Places:
        """Which of so many new rows stay, and the places they take."""
        fresh = self._random.random(rows)
        size = len(self._keys)
        kept = np.argsort(np.concatenate([self._keys, fresh]), kind="stable")[:size]
        rows_in = np.sort(kept[kept >= size] - size)
        free = np.setdiff1d(np.arange(size), kept[kept < size], assume_unique=True)
        self._keys[free] = fresh[rows_in]
        return rows_in, free


@dataclass(frozen=True)
class Size:
    """How much is kept: rows of each activation, rows that moments are taken from, widest k.

    Moments come from at most `moment_rows` rows and `moment_times` rows a channel, evenly out of
    the `expected` ones, or from the first ones where it is not known how many come.
    """

    sample: int
    moment_rows: int = 16384
    widest: int = 4096
    moment_times: int = 4
    least_moment_rows: int = 4096
    expected: int = 0

    def moments(self, k: int) -> int:
        """How many rows the moments of k channels are taken from, at most."""
        return min(self.moment_rows, max(self.moment_times * k, self.least_moment_rows))


class _Moments:
    """Weighed first and second moments, growing."""

    def __init__(self, k: int, size: Size) -> None:
        self._full, self._limit = k <= size.widest, size.moments(k)
        self._share, self._offered = self._limit / max(size.expected, self._limit), 0
        self._weight, self._first = 0.0, np.zeros(k)
        self._second = np.zeros((k, k) if self._full else k, np.float32)
        self._second_weight, self._second_first = 0.0, np.zeros(k)
        self._waiting: list[Matrix] = []

    def add(self, x: Matrix, importance: Vector) -> None:
        """Count rows [r, k] weighed by [r]."""
        weight, first = float(importance.sum(dtype=np.float64)), importance @ x
        self._weight += weight
        self._first += first
        if self._full:
            taken = self._taken(len(x))
            x, importance = x[taken], importance[taken]
            weight, first = float(importance.sum(dtype=np.float64)), importance @ x
        if not len(x):
            return
        self._second_weight += weight
        self._second_first += first
        self._waiting.append(x * np.sqrt(importance)[:, None])
        if sum(map(len, self._waiting)) >= AT_ONCE:
            self._multiply()

    def _taken(self, rows: int) -> NDArray[np.bool_] | slice:
        """Which of the next so many rows the moments are taken from: evenly many of all."""
        places = np.arange(self._offered, self._offered + rows + 1)
        self._offered += rows
        before = np.minimum(np.floor(places * self._share), self._limit)
        return np.diff(before) > 0 if self._share < 1 or before[-1] >= self._limit else slice(None)

    def _multiply(self) -> None:
        """Add the products of the rows that wait: many at once, for one pass over [k, k]."""
        if self._waiting:
            rows = np.concatenate(self._waiting)
            self._second += rows.T @ rows if self._full else np.square(rows).sum(axis=0)
            self._waiting.clear()

    def mean(self) -> Vector:
        """The weighed mean [k]."""
        return (self._first / self._weight).astype(np.float32)

    def covariance(self) -> Matrix:
        """The weighed covariance [k, k], or the variances [k]."""
        self._multiply()
        weight = self._second_weight or 1.0
        mean = self._second_first / weight
        square = np.outer(mean, mean) if self._full else mean * mean
        return (self._second / weight - square).astype(np.float32)


class _Tally:
    """Statistics of one activation [..., k], growing.

    Each draws its own rows: the same ones as all activations of as many rows a batch, since the
    draw is of the same seed, and none of another's, whose places here nobody would fill.
    """

    def __init__(self, size: Size, k: int, seed: int) -> None:
        self.size, self.rows = size.sample, 0
        self.reservoir = Reservoir(size.sample, seed)
        self.low, self.high = np.full(k, np.inf, np.float32), np.full(k, -np.inf, np.float32)
        self.moments, self.histogram = _Moments(k, size), Histogram.of(np.zeros(0, np.float32))
        self.sample = np.zeros((size.sample, k), np.float32)
        self.importance = np.ones(size.sample, np.float32)

    def add(self, x: Matrix, ends: Matrix, importance: Vector) -> None:
        """Count rows [r, k] weighed by [r], their `ends` [2, k] the least and the greatest."""
        self.low, self.high = np.minimum(self.low, ends[0]), np.maximum(self.high, ends[1])
        self.histogram = self.histogram + Histogram.of(x)
        self.moments.add(x, importance)
        rows, free = self.reservoir.offer(len(x))
        self.sample[free], self.importance[free] = x[rows], importance[rows]
        self.rows += len(x)

    def seen(self) -> Seen:
        """What was counted."""
        kept = min(self.rows, self.size)
        return Seen(
            rows=self.rows,
            low=self.low,
            high=self.high,
            mean=self.moments.mean(),
            moments=self.moments.covariance(),
            histogram=self.histogram,
            sample=self.sample[:kept],
            importance=self.importance[:kept],
        )


def collect(
    runs: Iterable[tuple[Arrays, NDArray[np.bool_] | None]],
    watched: Sequence[Watched],
    *,
    size: Size,
    seed: int,
) -> Mapping[str, Seen]:
    """Statistics of every watched activation over runs: its arrays, and which tokens are real.

    The rows that are kept are the same tokens of all activations that have tokens for rows. That
    so many rows are expected is of tokens: moments of others come from their first rows.

    Raises:
        CalibrationError: an activation is not a number; tensor and sample are named. Or nothing
            was seen.
    """
    tallies: dict[str, _Tally] = {}
    for index, (arrays, real) in enumerate(runs):
        for each in watched:
            mask = each.mask(real)
            x = rows_of(arrays[each.tensor], mask)
            if not len(x):
                continue
            ends = np.stack([x.min(axis=0), x.max(axis=0)])
            _check_finite(ends, each, arrays[each.tensor], real, index)
            if each.tensor not in tallies:
                own = size if _are_tokens(x, each, real) else replace(size, expected=0)
                tallies[each.tensor] = _Tally(own, x.shape[1], seed)
            importance = _importance(arrays.get(each.stream or ""), mask, len(x))
            tallies[each.tensor].add(x, ends, importance)
    if any(each.tensor not in tallies for each in watched):
        raise CalibrationError("no sample has a single token", mend="give samples with text")
    return {name: tally.seen() for name, tally in tallies.items()}


def rows_of(array: NDArray[np.generic], real: NDArray[np.bool_] | None) -> Matrix:
    """An activation [..., k] as float32 rows [r, k], those of padding left out.

    Where its leading dimensions turn out to be others than the mask's, all rows count.
    """
    rows = array.reshape(-1, array.shape[-1])
    shapes = (real.shape, (real.size,)) if real is not None else ()
    if real is not None and array.shape[:-1] in shapes and not real.all():
        rows = rows[real.reshape(-1)]
    return rows.astype(np.float32, copy=False)


def _are_tokens(x: Matrix, each: Watched, real: NDArray[np.bool_] | None) -> bool:
    """Whether an activation's rows of real tokens turn out to be that, as far as one knows."""
    return each.tokens and (real is None or len(x) == np.count_nonzero(real))


def _importance(
    stream: NDArray[np.generic] | None, real: NDArray[np.bool_] | None, rows: int
) -> Vector:
    """What an error in each row weighs, [rows]: 1 over the variance of its stream, else 1."""
    added = rows_of(stream, real) if stream is not None else np.zeros((0, 1), np.float32)
    if len(added) != rows:
        return np.ones(rows, np.float32)
    return (1 / np.maximum(added.var(axis=1), 1e-12)).astype(np.float32)


def _check_finite(
    ends: Matrix, each: Watched, array: NDArray[np.generic], real: _Real, index: int
) -> None:
    """Refuse an activation of batch `index` whose channels' ends [2, k] are not all numbers."""
    if np.isfinite(ends).all():  # a NaN is both the least and the greatest of its channel
        return
    mask = each.mask(real)
    x = rows_of(array, mask)
    (bad,) = np.nonzero(~np.isfinite(x).all(axis=1))
    if mask is not None and len(x) == np.count_nonzero(mask):  # a row a token, flat as well
        found = np.argwhere(mask)[bad, 1 if each.turned else 0]
    else:
        found = bad // (len(x) // len(array))
    raise CalibrationError(
        "the float model gives NaN or Inf",
        where=f"tensor {each.tensor}, sample {int(found.min())} of batch {index}",
        mend="leave that sample out, or check the checkpoint",
    )
