"""Rows picked from a table of int8: com.microsoft `GatherBlockQuantized` reads them as they are.

Without it ONNX Runtime would fold the table's DequantizeLinear and keep it in float.
"""

import numpy as np
import onnx_ir as ir

from .graph import array, insert, integer, made_by, register, replace, static
from .ort_int8 import MICROSOFT

#: The kernel takes blocks of this size and more.
LEAST_BLOCK = 16
#: Levels, and the table of uint8 [rows, blocks, block] that is read in their place.
Packed = dict[ir.Value, ir.Value]


def pick_rows(graph: ir.Graph, node: ir.Node, packed: Packed) -> bool:
    """Whether `Gather(DequantizeLinear(levels), ids)` became one that reads the levels.

    The table lies as a MatMul by its blocks wants it, [rows, blocks, block] of uint8 with 128 for
    0: a head that reads the same levels shares it, by `packed`.
    """
    if node.op_type != "Gather" or node.domain or integer(node, "axis", 0) != 0:
        return False
    back, ids = made_by(node.inputs[0], "DequantizeLinear"), node.inputs[1]
    if back is None or ids is None or ids.shape is None:
        return False
    levels, block = back.inputs[0], integer(back, "block_size", 0)
    if levels is None or levels.dtype != ir.DataType.INT8 or len(back.inputs) > 2:
        return False
    if integer(back, "axis", 1) != 1 or block < LEAST_BLOCK or block & (block - 1):
        return False
    scale = ir.convenience.get_const_tensor(back.inputs[1]) if back.inputs[1] else None
    if scale is None or scale.dtype != ir.DataType.FLOAT or not _whole(levels, block):
        return False
    table = blocked(graph, levels, block, packed)
    steps = array(graph, f"{levels.name}.steps", scale.numpy()[..., None])
    rows = _picked(node, [table, _known(graph, node, ids, levels), steps], block)
    width = static(levels, 1) or 0
    flat = array(graph, f"{rows.name}.width", np.array([0] * len(ids.shape) + [width], np.int64))
    whole = insert(node, "Reshape", [rows, flat], name=f"{rows.name}.whole", like=node.outputs[0])
    replace(node.outputs[0], whole)
    return True


def _known(graph: ir.Graph, node: ir.Node, ids: ir.Value, levels: ir.Value) -> ir.Value:
    """The ids, refused where they are of no row as Gather does: the kernel gives rows of 0."""
    rows = array(graph, f"{levels.name}.ids", np.arange(static(levels, 0) or 0, dtype=np.int32))
    name = f"{node.outputs[0].name}.known"
    known = insert(node, "Gather", [rows, ids], name=name, attributes={"axis": 0})
    known.type, known.shape = ir.TensorType(ir.DataType.INT32), ids.shape
    return known


def _whole(levels: ir.Value, block: int) -> bool:
    """Whether they are a constant [rows, width] of whole blocks: the kernel has no part of one."""
    width = static(levels, 1) if levels.const_value is not None else None
    return width is not None and static(levels, 2) is None and width % block == 0


def _picked(node: ir.Node, inputs: list[ir.Value], block: int) -> ir.Value:
    """The rows [..., blocks, block]."""
    out = node.outputs[0]
    made = insert(
        node,
        "GatherBlockQuantized",
        inputs,
        name=f"{out.name}.picked",
        domain=MICROSOFT,
        like=out,
        attributes={"bits": 8, "block_size": block, "gather_axis": 0, "quantize_axis": 2},
    )
    made.shape = None
    return made


def blocked(graph: ir.Graph, levels: ir.Value, block: int, packed: Packed) -> ir.Value:
    """Levels [rows, width] as [rows, blocks, block] of uint8, made when they are saved; once."""
    if levels in packed:
        return packed[levels]
    tensor = levels.const_value
    assert tensor is not None
    rows, width = (int(size) for size in tensor.shape.numpy())

    def values() -> ir.TensorProtocol:
        moved = tensor.numpy().view(np.uint8) ^ np.uint8(128)  # level + 128, in two's complement
        return ir.tensor(moved.reshape(rows, width // block, block))

    shape, name = ir.Shape([rows, width // block, block]), f"{levels.name}.packed"
    lazy = ir.LazyTensor(values, ir.DataType.UINT8, shape, name=name)
    packed[levels] = register(graph, name, lazy)
    return packed[levels]
