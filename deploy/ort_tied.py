"""A weight that is read as it lies and turned too, a tied output head's, is kept once.

ONNX Runtime would fold the Transpose and save both; com.microsoft `FusedMatMul` reads it turned,
as fast and with the same numbers.
"""

from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .backend import CLOSE, Promise
from .graph import insert, ints, made_by, replace
from .ort_int8 import MICROSOFT

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


class TiedMatMul(ir.passes.InPlacePass):
    """`x @ Transpose(w)` becomes `FusedMatMul(x, w)` where w has other readers."""

    contract: ClassVar[Promise] = CLOSE

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Let each MatMul read the weight itself."""
        count = sum(_read_turned(node) for node in list(model.graph))
        if count:
            model.opset_imports.setdefault(MICROSOFT, 1)
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)


def _read_turned(node: ir.Node) -> bool:
    if node.op_type != "MatMul" or node.domain:
        return False
    x, turn = node.inputs[0], made_by(node.inputs[1], "Transpose")
    weight = turn.inputs[0] if turn is not None else None
    if turn is None or weight is None or not _shared(weight):
        return False
    if weight.shape is None or len(weight.shape) != 2 or ints(turn, "perm", [1, 0]) != [1, 0]:
        return False
    out = node.outputs[0]
    made = insert(
        node,
        "FusedMatMul",
        [x, weight],
        name=f"{out.name}.turned",
        domain=MICROSOFT,
        like=out,
        attributes={"transB": 1},
    )
    replace(out, made)
    return True


def _shared(weight: ir.Value) -> bool:
    """Whether it is a constant that others read; ONNX Runtime widens halves as they are used."""
    others = [use for use in weight.uses() if use.node.op_type != "Transpose"]
    known = weight.is_initializer() and not weight.is_graph_input()
    return known and weight.dtype in _FLOATS and bool(others)
