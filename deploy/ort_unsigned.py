"""INT8 weights as uint8 with zero point 128, for ONNX Runtime's products of 8 bits on a CPU.

uint8 by int8 is exact only where the processor has a dot product of bytes (VNNI and its kin). On
x86 without one, the kernel adds two products in 16 bits (`vpmaddubsw`), and 2 * 255 * 127 does not
fit: sums are cut off, silently. uint8 by uint8 is widened first there, and is exact; where there
is a dot product, both run the same kernel, for the sign is turned when the weight is packed
(MLAS, `platform.cpp`). An engine that is built here is right wherever it goes.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .graph import constant, register


def unsigned(graph: ir.Graph, weight: ir.Value, *, turned: bool) -> ir.Value:
    """A new constant: the levels [K, N] of `weight`, int8 or uint8, plus 128 where they are int8.

    `turned` says that `weight` is [N, K]. uint8 as it lies is given back. The levels are made
    when they are saved, a tensor at a time.
    """
    tensor = ir.convenience.get_const_tensor(weight)
    assert tensor is not None
    if tensor.dtype == ir.DataType.UINT8 and not turned:
        return weight

    def levels() -> ir.TensorProtocol:
        return ir.tensor(_moved(weight, turned=turned), dtype=ir.DataType.UINT8)

    sizes = tensor.shape.numpy()
    name = f"{weight.name}.unsigned"
    shape = ir.Shape(sizes[::-1] if turned else sizes)
    return register(graph, name, ir.LazyTensor(levels, ir.DataType.UINT8, shape, name=name))


def _moved(weight: ir.Value, *, turned: bool) -> NDArray[Any]:
    values = constant(weight)
    assert values is not None
    # the bit of the sign, turned over: q + 128 in eight bits
    bits = values.view(np.uint8) ^ np.uint8(128) if values.dtype == np.int8 else values
    return np.ascontiguousarray(bits.T if turned else bits)
