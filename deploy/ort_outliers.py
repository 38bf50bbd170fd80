"""Outlier channels are picked from a tensor before it is scaled and moved for the others' INT8.

Then the Mul and the Add have one reader, and the Add can go into a zero point (`ort_int8`).
"""

from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .backend import CLOSE, Promise
from .graph import array, constant, integer, made_by, only_use

Array = NDArray[np.float32]


class PickSooner(ir.passes.InPlacePass):
    """`Gather(x * m + a, O) @ r` becomes `Gather(x, O) @ (m[O] r)`, and `a[O] @ r` joins the bias.

    m and a are constants, [k] or of one element; where there is no bias the Add stays.
    """

    contract: ClassVar[Promise] = CLOSE

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Pick as soon as can be, past every Mul and Add by a constant."""
        picks = [node for node in model.graph if node.op_type == "Gather" and not node.domain]
        count = sum(_sooner(model.graph, pick) for pick in picks)
        if count:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)


def _sooner(graph: ir.Graph, pick: ir.Node) -> int:
    """How many steps sooner the columns of a tensor are picked than they were."""
    count, source, index = 0, pick.inputs[0], constant(pick.inputs[1])
    products = [use.node for use in pick.outputs[0].uses()]
    rank = len(source.shape) if source is not None and source.shape is not None else 0
    if index is None or index.ndim != 1 or not rank or pick.outputs[0].is_graph_output():
        return 0
    if integer(pick, "axis", 0) not in (-1, rank - 1):
        return 0
    while (step := made_by(pick.inputs[0], "Mul", "Add")) is not None:
        found = _constant_side(step, index)
        moved = found is not None and _move(graph, pick, step, found[1], products)
        if found is None or not moved:
            break
        pick.replace_input_with(0, found[0])
        count += 1
    return count


def _constant_side(step: ir.Node, index: NDArray[np.int64]) -> tuple[ir.Value, Array] | None:
    """What a constant multiplies or is added to, and its elements [o] of the picked columns."""
    shape = step.outputs[0].shape
    for x, other in (step.inputs, reversed(step.inputs)):
        values = constant(other)
        if x is None or values is None or shape is None or x.shape is None:
            continue
        if values.dtype != np.float32 or len(x.shape) != len(shape) or x.shape[-1] != shape[-1]:
            continue
        if values.size == 1:
            return x, np.full(index.shape, values.reshape(()), np.float32)
        if values.ndim == 1:
            return x, values[index]
    return None


def _move(
    graph: ir.Graph, pick: ir.Node, step: ir.Node, values: Array, products: list[ir.Node]
) -> bool:
    """Let the products of the picked columns do what a Mul or an Add by `values` [o] did."""
    rows = [constant(node.inputs[1]) if _plain(node, pick) else None for node in products]
    biases = [_bias(node) for node in products]
    if not products or any(each is None for each in rows):
        return False
    if step.op_type == "Add" and any(each is None for each in biases):
        return False
    for node, row, bias in zip(products, rows, biases, strict=True):
        assert row is not None
        name = node.outputs[0].name
        if step.op_type == "Mul":
            scaled = array(graph, f"{name}.rows", (values[:, None] * row).astype(np.float32))
            node.replace_input_with(1, scaled)
        elif bias is not None:
            old = constant(bias[0].inputs[bias[1]])
            assert old is not None
            added = values.astype(np.float64) @ row
            moved = array(graph, f"{name}.bias", (old + added).astype(np.float32))
            bias[0].replace_input_with(bias[1], moved)
    return True


def _plain(node: ir.Node, pick: ir.Node) -> bool:
    """Whether a node is `picked @ rows`, rows a constant [o, n] of float32."""
    rows = constant(node.inputs[1]) if node.op_type == "MatMul" and not node.domain else None
    first = node.inputs[0] is pick.outputs[0]
    return first and rows is not None and rows.ndim == 2 and rows.dtype == np.float32


def _bias(product: ir.Node) -> tuple[ir.Node, int] | None:
    """The Add of a constant [n] to what the picked columns' product is added to, and its input."""
    last = only_use(product.outputs[0])
    if last is None or last.op_type != "Add" or last.domain:
        return None
    other = last.inputs[1 if last.inputs[0] is product.outputs[0] else 0]
    add = made_by(other, "Add")
    if add is None or other is None or only_use(other) is not last:
        return None
    width = product.outputs[0].shape[-1] if product.outputs[0].shape is not None else None
    for place, value in enumerate(add.inputs):
        values = constant(value)
        if values is not None and values.dtype == np.float32 and values.shape == (width,):
            return add, place
    return None
