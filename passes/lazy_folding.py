"""Folds arithmetic on weights alone; the numbers are made when they are saved, one at a time."""

import numpy as np
import onnx_ir as ir

from .contract import CLOSE
from .folding import evaluate
from .rules import Builder, Outcome, Rule, rule
from .weights import Array, read

#: Operators whose numbers the reference gives as runtimes do, and that make nothing larger.
_ARITHMETIC = (
    "Add",
    "Div",
    "Gemm",
    "LayerNormalization",
    "MatMul",
    "Mul",
    "Neg",
    "Sub",
)
#: Operators that only move elements: folded when nothing else reads the weight.
_MOVES = ("Reshape", "Slice", "Squeeze", "Unsqueeze")


@rule(*_ARITHMETIC, *_MOVES, contract=CLOSE)
def constant_weight(build: Builder, node: ir.Node) -> Outcome:
    """f(weights) = a weight, made when it is saved: a table of positions that is projected."""
    tensors = [_tensor(value) for value in node.inputs]
    known = [tensor for tensor in tensors if tensor is not None]
    given = [value for value in node.inputs if value is not None]
    if len(known) != len(given) or len(node.outputs) != 1:
        return "an input is no constant"
    if node.op_type in _MOVES and len(given[0].uses()) > 1:
        return "the weight is read elsewhere: it would be there twice"
    output = node.outputs[0]
    if output.shape is None or not output.shape.is_static() or output.dtype is None:
        return "the size of the result is not known"
    shape = output.shape.numpy()
    size = int(np.prod(shape, dtype=np.float64)) * output.dtype.itemsize
    if size > sum(tensor.nbytes for tensor in known):
        return "the result is larger than what it is made of"
    name = f"{output.name}_folded"
    frozen, opset = ir.serde.serialize_node(node), build.opset

    def make() -> ir.TensorProtocol:
        arrays: list[Array | None] = [None if t is None else read(t) for t in tensors]
        made = evaluate(frozen, opset, arrays)
        if isinstance(made, str):
            raise ValueError(f"constant {name} cannot be made: {made}")
        return ir.tensor(made[0], name=name)

    return build.weight(ir.LazyTensor(make, output.dtype, ir.Shape(shape), name=name), name)


def _tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else tensor


LAZY: tuple[Rule, ...] = (constant_weight,)
