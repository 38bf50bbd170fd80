"""Weights that alone are quantised stay so: com.microsoft `MatMulNBits` reads them as they are.

Without it ONNX Runtime would fold their DequantizeLinear and keep float weights. Its fast kernels
quantise each row of the activations to int8 by blocks as they run (accuracy level 4): at one row
2.5 times as fast as float where kernels that keep float activations are as slow or far slower.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .backend import Promise
from .graph import constant, insert, integer, made_by, register, replace, static
from .ort_int8 import MICROSOFT
from .ort_tables import Packed, pick_rows

BITS = {ir.DataType.INT8: 8, ir.DataType.INT4: 4}
#: Block of a weight that has one scale a column. The kernel rounds activations by the same blocks:
#: beside channels with outliers 32 takes a third to a half of 128's error away, for about a tenth
#: of the time (`benchmarks/int8_products.py`).
COLUMN_BLOCK = 32
LEAST_BLOCK = 16
INT8_ACTIVATIONS = 4


@dataclass(frozen=True)
class Stored:
    """A quantised weight as it is stored: its values, scales, and how they lie.

    Values are [K, N], or [N, K] when `turned`; a scale covers `block` steps of K.
    """

    values: ir.TensorProtocol
    scales: NDArray[np.float32]
    k: int
    n: int
    bits: int
    block: int
    turned: bool
    #: The levels that stand for 0 [N, blocks]; None where all are 0.
    zeros: NDArray[np.int16] | None = None


class WeightOnlyMatMul(ir.passes.InPlacePass):
    """`x @ DQ(w) [+ b]` becomes com.microsoft `MatMulNBits`, w packed by column in blocks of K.

    Rows that are picked of such a weight, an embedding's, are read as they are too.
    """

    #: Rows of activations with outliers lose most: a tenth of the greatest value was seen.
    contract: ClassVar[Promise] = Promise("lossy", {"float32": 0.2})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower what of the main graph has a weight that alone is quantised."""
        made = Made()
        count = sum(
            pick_rows(model.graph, node, made.tables) or _lower(model.graph, node, made)
            for node in list(model.graph)
        )
        if count:
            model.opset_imports.setdefault(MICROSOFT, 1)
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)


@dataclass(frozen=True)
class Made:
    """What the kernels read, by the DequantizeLinear and how its weight lies; tables by levels."""

    weights: dict[tuple[int, bool], tuple[ir.Value, ...]] = field(
        default_factory=dict[tuple[int, bool], tuple[ir.Value, ...]]
    )
    tables: Packed = field(default_factory=dict[ir.Value, ir.Value])


def _lower(graph: ir.Graph, node: ir.Node, made: Made) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or node.domain or not _plain(node):
        return False
    turn = made_by(node.inputs[1], "Transpose")  # of a table that a Gather reads too
    x, back = node.inputs[0], made_by((turn or node).inputs[0 if turn else 1], "DequantizeLinear")
    if x is None or x.dtype not in (ir.DataType.FLOAT, None) or back is None:
        return False
    if made_by(x, "DequantizeLinear") is not None:
        return False  # rounded as the graph says, to int16 as a rule: not to int8 once more
    stored = _stored(back, flipped=(turn is not None) != (integer(node, "transB", 0) == 1))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if stored is None or (bias is not None and static(bias, 0) != stored.n):
        return False
    key, packed = (id(back), stored.turned), made.weights
    if key not in packed:
        packed[key] = _pack(graph, back, stored, made.tables)
    out = node.outputs[0]
    attributes = {
        "K": stored.k,
        "N": stored.n,
        "bits": stored.bits,
        "block_size": stored.block,
        "accuracy_level": INT8_ACTIVATIONS,
    }
    name, inputs = f"{out.name}.packed", [x, *packed[key]]
    if bias is not None:
        inputs += [None] * (5 - len(inputs)) + [bias]
    new = insert(
        node, "MatMulNBits", inputs, name=name, domain=MICROSOFT, like=out, attributes=attributes
    )
    replace(out, new)
    return True


def _plain(node: ir.Node) -> bool:
    """Whether a Gemm is x @ w + b with b [n], as a MatMul always is."""
    factors = (node.attributes.get(name) for name in ("alpha", "beta"))
    ones = all(factor is None or factor.as_float() == 1.0 for factor in factors)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    flat = bias is None or (bias.shape is not None and len(bias.shape) == 1)
    return ones and flat and integer(node, "transA", 0) == 0


def _stored(back: ir.Node, *, flipped: bool) -> Stored | None:
    """The weight behind a DequantizeLinear, None when the kernel cannot take it.

    It is `flipped` where its reader takes [N, K].
    """
    source, scales = back.inputs[0], constant(back.inputs[1])
    turn = made_by(source, "Transpose")  # of a weight that is kept as the checkpoint has it
    source = turn.inputs[0] if turn is not None else source
    values = source.const_value if source is not None else None
    given = back.inputs[2] if len(back.inputs) > 2 else None
    zeros = constant(given)
    if (given is None) != (zeros is None):
        return None
    if values is None or scales is None or scales.dtype != np.float32 or values.dtype not in BITS:
        return None
    sizes = [static(source, axis) for axis in (0, 1)] if len(values.shape) == 2 else []
    if len(sizes) != 2 or sizes[0] is None or sizes[1] is None:
        return None
    turned = (turn is not None) != flipped
    k, n = (sizes[1], sizes[0]) if turned else (sizes[0], sizes[1])
    laid = _blocks(back, scales, k, n, inner=int(flipped))
    if laid is None:
        return None
    levels = None
    if zeros is not None and zeros.astype(np.int16).any():
        moved = _blocks(back, zeros.astype(np.int16), k, n, inner=int(flipped))
        if moved is None:
            return None
        levels = moved[1]
    return Stored(values, laid[1], k, n, BITS[values.dtype], laid[0], turned, levels)


def _blocks(
    back: ir.Node, scales: NDArray[Any], k: int, n: int, *, inner: int
) -> tuple[int, NDArray[Any]] | None:
    """The block and the scales [N, blocks], or zero points; None where the kernel has none such.

    `inner` is the axis of K in what DequantizeLinear gives.
    """
    size, axis = integer(back, "block_size", 0), integer(back, "axis", 1) % 2
    if size == 0 and scales.size in (1, n) and (scales.size == 1 or axis != inner):
        blocks = -(-k // COLUMN_BLOCK)
        columns = np.broadcast_to(scales.reshape(-1, 1), (scales.size, blocks))
        return COLUMN_BLOCK, np.ascontiguousarray(np.broadcast_to(columns, (n, blocks)))
    power = size >= LEAST_BLOCK and size & (size - 1) == 0
    by_column = scales if inner else scales.T
    if power and axis == inner and by_column.shape == (n, -(-k // size)):
        return size, np.ascontiguousarray(by_column)
    return None


def _pack(graph: ir.Graph, back: ir.Node, stored: Stored, tables: Packed) -> tuple[ir.Value, ...]:
    """The kernel's weight [N, blocks, bytes], scales [N * blocks] and zero points, where it has.

    Bytes of the weight are made when it is saved.
    """
    levels = back.inputs[0]
    name, blocks = (levels.name if levels is not None else None) or "weight", stored.scales.shape[1]
    if levels in tables and stored.turned and stored.k == blocks * stored.block:
        scales = ir.tensor(stored.scales.reshape(-1))
        return tables[levels], register(graph, f"{name}.scales", scales)
    shape = ir.Shape([stored.n, blocks, stored.block * stored.bits // 8])

    def values() -> ir.TensorProtocol:
        return ir.tensor(pack(stored))

    lazy = ir.LazyTensor(values, ir.DataType.UINT8, shape, name=f"{name}.packed")
    scales = ir.tensor(stored.scales.reshape(-1))
    made = register(graph, f"{name}.packed", lazy), register(graph, f"{name}.scales", scales)
    if stored.zeros is None:
        return made
    zeros = ir.tensor(packed_zeros(stored.zeros, stored.bits).reshape(-1))
    return (*made, register(graph, f"{name}.zeros", zeros))


def packed_zeros(zeros: NDArray[np.int16], bits: int) -> NDArray[np.uint8]:
    """Zero points [N, blocks] as unsigned; two of four bits share a byte of their row."""
    unsigned = (zeros + (1 << (bits - 1))).astype(np.uint8)
    if bits == 8:
        return unsigned
    even = np.pad(unsigned, ((0, 0), (0, unsigned.shape[1] % 2)))
    return (even[:, 0::2] | (even[:, 1::2] << 4)).astype(np.uint8)


def pack(stored: Stored) -> NDArray[np.uint8]:
    """Values as unsigned, by column, padded to whole blocks; two of four bits share a byte."""
    array: NDArray[Any] = stored.values.numpy().astype(np.int16)
    columns = array if stored.turned else array.T
    middle = 1 << (stored.bits - 1)
    blocks = stored.scales.shape[1]
    padded = np.full((stored.n, blocks * stored.block), middle, np.uint8)
    padded[:, : stored.k] = columns + middle
    padded = padded.reshape(stored.n, blocks, stored.block)
    if stored.bits == 8:
        return padded
    return (padded[..., 0::2] | (padded[..., 1::2] << 4)).astype(np.uint8)
