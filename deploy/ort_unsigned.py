"""INT8 weights as uint8 with zero point 128, for ONNX Runtime's products of 8 bits on a CPU.

uint8 by int8 is exact only where the processor has a dot product of bytes (VNNI and its kin). On
x86 without one, the kernel adds two products in 16 bits (`vpmaddubsw`), and 2 * 255 * 127 does not
fit: sums are cut off, silently. uint8 by uint8 is widened first there, and is exact, a quarter
slower; where there is a dot product, both run the same kernel, for the sign is turned when the
weight is packed (MLAS, `platform.cpp`). Weights whose products fit two by two stay as they are:
an engine that is built here is right wherever it goes.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .graph import constant, register

#: 255 times this is the most of its kind that int16 holds.
PAIR = 128


def dtype_of(weight: ir.Value) -> ir.DataType:
    """The dtype of a constant's own tensor: not every graph says that of its values."""
    tensor = ir.convenience.get_const_tensor(weight)
    assert tensor is not None
    return tensor.dtype


def unsigned(graph: ir.Graph, weight: ir.Value, *, turned: bool) -> ir.Value:
    """The levels [K, N] of `weight`, [N, K] where `turned`, as the kernel is exact on them.

    uint8, plus 128 where they were int8; int8 as they are where `_fit`. A new constant is made
    when it is saved, a tensor at a time.
    """
    tensor = ir.convenience.get_const_tensor(weight)
    assert tensor is not None
    signed = tensor.dtype == ir.DataType.INT8
    stays = not signed or _fit(_read(weight, turned=turned))
    if stays and not turned:
        return weight

    def levels() -> ir.TensorProtocol:
        values = _read(weight, turned=turned)
        # the bit of the sign, turned over: q + 128 in eight bits
        return ir.tensor(values if stays else values.view(np.uint8) ^ np.uint8(128))

    sizes = tensor.shape.numpy()
    name = f"{weight.name}.{'turned' if stays else 'unsigned'}"
    shape = ir.Shape(sizes[::-1] if turned else sizes)
    kind = tensor.dtype if stays else ir.DataType.UINT8
    return register(graph, name, ir.LazyTensor(levels, kind, shape, name=name))


def _read(weight: ir.Value, *, turned: bool) -> NDArray[Any]:
    values = constant(weight)
    assert values is not None
    return np.ascontiguousarray(values.T if turned else values)


def _fit(levels: NDArray[np.int8]) -> bool:
    """Whether 255 times any two neighbours along K fit in int16 together."""
    wide = levels.astype(np.int16)
    if len(wide) % 2:
        wide = np.concatenate([wide, np.zeros_like(wide[:1])])
    first, second = wide[::2], wide[1::2]
    same = (first > 0) == (second > 0)
    return bool((np.where(same, np.abs(first + second), 0) <= PAIR).all())
