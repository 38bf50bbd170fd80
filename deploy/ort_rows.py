"""Rows of a table that are read in their order, as positions are, are a piece of the table."""

from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .backend import EXACT, Promise
from .graph import array, constant, insert, integer, made_by, replace, static


class SliceRows(ir.passes.InPlacePass):
    """`Gather(table [n, w], ids[..., a:b])` becomes `table[a:b]` where ids counts from 0 to n - 1.

    One copy takes the place of two, and of a search for each row.
    """

    contract: ClassVar[Promise] = EXACT

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Slice each table whose rows are picked so."""
        picks = [node for node in model.graph if node.op_type == "Gather" and not node.domain]
        count = sum(_sliced(model.graph, pick) for pick in picks)
        if count:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)


def _sliced(graph: ir.Graph, pick: ir.Node) -> bool:
    table, part = pick.inputs[0], made_by(pick.inputs[1], "Slice")
    rows, out = static(table, 0), pick.outputs[0]
    if part is None or rows is None or integer(pick, "axis", 0) != 0:
        return False
    ids = constant(part.inputs[0])
    if ids is None or ids.shape != (*[1] * (ids.ndim - 1), rows):
        return False
    if not np.array_equal(ids.reshape(-1), np.arange(rows)) or not _along_last(part, ids.ndim):
        return False
    kind = part.inputs[1].dtype if part.inputs[1] is not None else None
    if kind is None:  # all that Slice is given beside its data is of one type
        return False
    name = f"{out.name}.rows"
    zero, one = (array(graph, f"{name}.{n}", np.array([n], kind.numpy())) for n in (0, 1))
    made = insert(pick, "Slice", [table, *part.inputs[1:3], zero, one], name=name)
    made.type = out.type
    if ids.ndim > 1:
        axes = array(graph, f"{name}.axes", np.arange(ids.ndim - 1))
        made = insert(pick, "Unsqueeze", [made, axes], name=f"{name}.whole", like=out)
    replace(out, made)
    return True


def _along_last(part: ir.Node, rank: int) -> bool:
    """Whether a Slice takes neighbours on the last axis of a tensor of `rank`, in order."""
    if len(part.inputs) < 3:  # before opset 10 they were attributes
        return False
    axes, steps = ([*part.inputs, None, None][index] for index in (3, 4))
    along = constant(axes) if axes is not None else np.arange(rank)
    stride = constant(steps) if steps is not None else np.ones(1)
    if along is None or stride is None or along.size != 1 or stride.size != 1:
        return False
    return along.item() in (-1, rank - 1) and stride.item() == 1
