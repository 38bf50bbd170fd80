"""The number formats of Q/DQ by numpy: INT8 and INT16 in equal steps, FP8 E4M3 in relative ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rounding import LEAST

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """A format by ONNX's name of it, its greatest value, and its relative error, 0 of integers."""

    name: str
    top: float
    relative: float = 0.0

    def step(self, amax: float) -> float:
        """What the value 1 stands for where `top` stands for amax, as the graph's float32."""
        return float(np.float32(max(amax, LEAST) / self.top))

    def stored(self, scaled: Matrix) -> NDArray[Any]:
        """The nearest values of x / step, in the format's own dtype; beyond its ends the ends."""
        if self.relative:
            from ml_dtypes import float8_e4m3fn

            return np.clip(scaled, -self.top, self.top).astype(float8_e4m3fn)
        kind = np.dtype(self.name.lower())
        return np.clip(np.rint(scaled), -self.top - 1, self.top).astype(kind)

    def rounded(self, x: Matrix, step: float) -> Matrix:
        """What the format makes of x in float32."""
        return self.stored(x * np.float32(1 / step)).astype(np.float32) * np.float32(step)

    def noise(self, step: float, variance: NDArray[np.float64]) -> NDArray[np.float64]:
        """The variance that rounding adds to channels of these variances."""
        if self.relative:
            return variance * self.relative**2 / 3
        return np.full_like(variance, step * step / 12)


INT8 = Format("INT8", 127)
INT16 = Format("INT16", 32767)
#: Three bits of mantissa: half a step is 1/16 of the value. OCP 8-bit floating point, E4M3.
E4M3 = Format("FLOAT8E4M3FN", 448, 1 / 16)


@dataclass(frozen=True)
class Formats:
    """What activations and weights become."""

    activation: Format
    weight: Format


#: By precision.
FORMATS = {
    "int8": Formats(INT8, INT8),
    "fp8": Formats(E4M3, E4M3),
    "w8a16": Formats(INT16, INT8),
}
