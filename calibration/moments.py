"""What a layer's inputs and wanted outputs say of each other: centred second moments, streamed."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]
Matrix = NDArray[np.float64]
#: Rows multiplied at a time: float32 products, float64 sums.
CHUNK = 8192


@dataclass
class Moments:
    """Sums over rows of inputs x [r, k] and targets t [r, n], float64.

    `gram` is the sum of x x^T [k, k], `cross` that of x t^T [k, n].
    """

    k: int
    n: int
    rows: int = 0
    gram: Matrix = field(init=False, repr=False)
    cross: Matrix = field(init=False, repr=False)
    x: Matrix = field(init=False, repr=False)
    t: Matrix = field(init=False, repr=False)
    #: The sum of t's squares, by column.
    power: Matrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.gram, self.cross = np.zeros((self.k, self.k)), np.zeros((self.k, self.n))
        self.x, self.t, self.power = np.zeros(self.k), np.zeros(self.n), np.zeros(self.n)

    def add(self, inputs: Rows, targets: Rows) -> None:
        """Take in rows of inputs [r, k] and targets [r, n]."""
        for start in range(0, len(inputs), CHUNK):
            x = np.ascontiguousarray(inputs[start : start + CHUNK], np.float32)
            t = np.ascontiguousarray(targets[start : start + CHUNK], np.float32)
            self.gram += x.T @ x
            self.cross += x.T @ t
            self.x += x.sum(axis=0, dtype=np.float64)
            self.t += t.sum(axis=0, dtype=np.float64)
            self.power += np.square(t, dtype=np.float64).sum(axis=0)
            self.rows += len(x)

    def mean(self) -> Matrix:
        """The mean of x x^T [k, k], not centred."""
        return self.gram / max(self.rows, 1)

    def centred(self) -> tuple[Matrix, Matrix]:
        """Covariances of the inputs [k, k], and of inputs and targets [k, n]."""
        rows = max(self.rows, 1)
        gram = self.gram / rows - np.outer(self.x, self.x) / rows**2
        cross = self.cross / rows - np.outer(self.x, self.t) / rows**2
        return gram, cross

    def means(self) -> tuple[Matrix, Matrix]:
        """The mean input [k] and target [n]."""
        rows = max(self.rows, 1)
        return self.x / rows, self.t / rows

    def variance(self) -> float:
        """The mean square of a target about its mean, summed over its columns."""
        rows = max(self.rows, 1)
        return float((self.power / rows - np.square(self.t / rows)).sum())
