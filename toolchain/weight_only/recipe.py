"""How weights are rounded, what is rounded, and what became of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ...calibration.blockwise import Grid, Levels, Matrix

Way = Literal["rtn", "gptq", "awq"]
Method = Literal["auto", Way]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """How weights are rounded: `block` inputs share a scale (0: all), `damping` is GPTQ's.

    With `moved` each block may have a zero point other than 0, where the target takes such.
    """

    bits: int
    block: int
    method: Method = "auto"
    act_order: bool = True
    damping: float = 0.01
    moved: bool = False


@dataclass(frozen=True)
class Rounding:
    """Levels [k, n] and steps [k / block, n] of one weight, how they were found, what they cost.

    Levels are counted from the zero points `zeros` [k / block, n], 0 where they are None.

    `error` is the mean square of what the layer's output lacks over that of the output, on
    held-out samples; None where there are none.
    """

    levels: Levels
    steps: Matrix
    method: Way
    error: float | None = None
    zeros: Matrix | None = None

    def lean(self) -> "Rounding":
        """What is told of it, its levels not held in memory."""
        none = np.zeros((0, 0), np.int8)
        return Rounding(none, none.astype(np.float32), self.method, self.error)


@dataclass(frozen=True)
class Choice:
    """An activation's scale [k], None for none, its power, and a rounding for each layer."""

    scale: Vector | None
    power: float | None
    layers: tuple[Rounding, ...]

    @property
    def error(self) -> float:
        """The errors of all layers."""
        return sum(each.error or 0.0 for each in self.layers)


@dataclass(frozen=True)
class Case:
    """Layers that read one activation: what reads the weight [k, n] of each, its grid, and the
    kind that scales are of.
    """

    reads: tuple[Callable[[], Matrix], ...]
    grids: tuple[Grid, ...]
    kind: np.dtype[np.generic]

    @property
    def weights(self) -> Iterator[Matrix]:
        """The weights [k, n], each read as it is asked for."""
        return (read() for read in self.reads)

    def stored(self, steps: Matrix) -> Matrix:
        """Steps as the graph's dtype holds them; where that is 0, its least normal number."""
        held = steps.astype(self.kind).astype(np.float32)
        return np.where(held > 0, held, np.float32(ml_dtypes.finfo(self.kind).tiny))
