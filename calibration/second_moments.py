"""Second moments of activations, streamed: all that weight-only rounding asks of samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import CalibrationError
from .forward import Arrays
from .statistics import Watched, rows_of

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]
#: Channels whose products are kept with each other; wider activations are cut into equal parts.
WIDEST = 4096
#: Where parts may begin, so that no block of a weight lies in two.
ALIGNED = 128
#: Rows whose products are added at once.
AT_ONCE = 512


@dataclass(frozen=True)
class SecondMoments:
    """Of an activation x [..., k] over its rows: the mean of |x| [k], and of its products.

    `parts` are the blocks [w, w] on the diagonal of x'x, one where k is at most `WIDEST`: what
    lies between the parts of a wider one is taken for zero.
    """

    size: Vector
    parts: tuple[Matrix, ...]

    @property
    def diagonal(self) -> Vector:
        """The mean square of each channel [k]."""
        return np.concatenate([part.diagonal() for part in self.parts])

    def scaled(self, scale: Vector) -> "SecondMoments":
        """Those of x / scale, scale [k]."""
        parts = (
            part / np.outer(scale[start : start + len(part)], scale[start : start + len(part)])
            for start, part in self.places()
        )
        return SecondMoments(self.size / scale, tuple(parts))

    def places(self) -> Iterator[tuple[int, Matrix]]:
        """Each part and the channel at which it begins."""
        start = 0
        for part in self.parts:
            yield start, part
            start += len(part)

    def power(self, weight: Matrix) -> float:
        """The mean square of x @ weight, weight [k, n], summed over its columns."""
        total = 0.0
        for start, part in self.places():
            rows = weight[start : start + len(part)]
            total += float(np.einsum("kn,kn->", part @ rows, rows, dtype=np.float64))
        return max(total, 0.0)


class _Sum:
    """Second moments of one activation [..., k], growing."""

    def __init__(self, k: int) -> None:
        count = -(-k // WIDEST)
        self._ends = [k * part // count // ALIGNED * ALIGNED for part in range(1, count)]
        widths = np.diff([0, *self._ends, k])
        self._size, self._rows = np.zeros(k), 0
        self._parts = [np.zeros((width, width), np.float32) for width in widths]
        self._waiting: list[Matrix] = []

    def add(self, x: Matrix) -> None:
        """Count rows [r, k]."""
        self._rows += len(x)
        self._size += np.abs(x).sum(axis=0, dtype=np.float64)
        self._waiting.append(x)
        if sum(map(len, self._waiting)) >= AT_ONCE:
            self._multiply()

    def _multiply(self) -> None:
        if self._waiting:
            rows = np.concatenate(self._waiting)
            self._waiting.clear()
            for at, x in enumerate(np.split(rows, self._ends, axis=1)):
                self._parts[at] += x.T @ x

    def moments(self) -> SecondMoments:
        """What was counted, in its place."""
        self._multiply()
        if not self._rows:
            raise CalibrationError("no sample has a single token", mend="give samples with text")
        share = np.float32(1 / self._rows)
        for part in self._parts:
            np.multiply(part, share, out=part)
            if not np.isfinite(part.diagonal()).all():
                what = "activations are so large that their squares are not numbers"
                raise CalibrationError(what, mend="leave the sample out, or check the checkpoint")
        return SecondMoments((self._size / self._rows).astype(np.float32), tuple(self._parts))


class Sums:
    """Second moments of several activations, growing."""

    def __init__(self, watched: Sequence[Watched]) -> None:
        self._watched = watched
        self._sums: dict[str, _Sum] = {}

    def add(self, arrays: Arrays, real: NDArray[np.bool_] | None, index: int) -> None:
        """Count the activations of batch `index`; `real` marks its tokens that are no padding.

        Raises:
            CalibrationError: an activation is not a number; tensor and batch are named.
        """
        for each in self._watched:
            x = rows_of(arrays[each.tensor], each.mask(real))
            if not np.isfinite(x).all():
                raise CalibrationError(
                    "the float model gives NaN or Inf",
                    where=f"tensor {each.tensor}, batch {index} of the samples",
                    mend="leave that sample out, or check the checkpoint",
                )
            if each.tensor not in self._sums:
                self._sums[each.tensor] = _Sum(x.shape[1])
            self._sums[each.tensor].add(x)

    def moments(self) -> dict[str, SecondMoments]:
        """Those of each activation; the sums are empty afterwards.

        Raises:
            CalibrationError: nothing was seen.
        """
        grown, self._sums = self._sums, {}
        return {name: growing.moments() for name, growing in grown.items()}
