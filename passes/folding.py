"""Evaluates nodes whose inputs are small constants; weights on disk are never read."""

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from .check import subgraphs
from .contract import CLOSE
from .facts import SMALL, constant
from .rules import Builder, Outcome, Rule

_LEFT = {
    "Bernoulli",
    "Constant",
    "DequantizeLinear",  # a quantised weight stays quantised
    "Dropout",
    "Multinomial",
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
#: A constant may grow to this many elements by folding: more is cheaper to compute than to ship.
GROWTH = 4096


def constant_result(limit: int = SMALL, growth: int = GROWTH) -> Rule:
    """A rule that reads constants up to `limit` elements, and makes them up to `growth`."""

    def propose(build: Builder, node: ir.Node) -> Outcome:
        if node.op_type in _LEFT or not node.inputs or any(True for _ in subgraphs(node)):
            return "it is not folded: random, quantised or with a graph inside"
        arrays = [constant(value, limit) for value in node.inputs]
        if any(a is None and v is not None for a, v in zip(arrays, node.inputs, strict=True)):
            return "an input is not a small constant"
        for value in node.outputs:
            if not _fits(value, max(growth, *(a.size for a in arrays if a is not None))):
                return "the result is too large, or its size is not known"
        made = _evaluate(node, build.opset, arrays)
        if isinstance(made, str):
            return made
        name = _weight_name(node) or f"{node.outputs[0].name}_folded"
        return [build.constant(array, name) for array in made]

    return Rule("constant-result", frozenset({"*"}), "f(constants) = constants.", propose, CLOSE)


def _weight_name(node: ir.Node) -> str | None:
    """The name of a weight that is only cast or moved: what is made of it may bear it on."""
    value = node.inputs[0]
    moves = node.op_type in ("Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity")
    return value.name if moves and value is not None and value.is_initializer() else None


def _fits(value: ir.Value, limit: int) -> bool:
    """Whether an output's size is known before it is made, and small."""
    shape = value.shape
    if shape is None or not shape.is_static():
        return False
    return int(np.prod([int(dim) for dim in shape.numpy()], dtype=np.float64)) <= limit


def _evaluate(
    node: ir.Node, opset: int, arrays: list[NDArray[np.generic] | None]
) -> list[NDArray[np.generic]] | str:
    proto = ir.serde.serialize_node(node)
    del proto.input[:], proto.output[:]
    proto.input.extend(f"i{k}" if array is not None else "" for k, array in enumerate(arrays))
    proto.output.extend(f"o{k}" for k in range(len(node.outputs)))
    feeds = {f"i{k}": array for k, array in enumerate(arrays) if array is not None}
    try:
        made = _session(proto.SerializeToString(), opset).run(None, feeds)
    except Exception as error:
        return f"the reference cannot evaluate it ({type(error).__name__})"
    for array, value in zip(made, node.outputs, strict=True):
        if not isinstance(array, np.ndarray | np.generic):
            return "it does not give arrays"
        if (
            value.dtype is not None
            and ir.DataType.from_numpy(np.asarray(array).dtype) != value.dtype
        ):
            return "the reference gives another type"
    return [np.asarray(array) for array in made]


@cache
def _session(node: bytes, opset: int) -> ReferenceEvaluator:
    proto = onnx.NodeProto.FromString(node)
    inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.input if name]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output]
    graph = onnx.helper.make_graph([proto], "fold", inputs, outputs)
    return ReferenceEvaluator(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    )
