"""Evaluates nodes whose inputs are small constants; weights on disk are never read."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from .check import subgraphs
from .contract import CLOSE
from .evaluator import evaluator
from .facts import SMALL, constant
from .rules import Builder, Outcome, Rule

_LEFT = {
    "BatchNormalization",  # before opset 14 the reference trains
    "Bernoulli",
    "Constant",
    "DequantizeLinear",  # a quantised weight stays quantised
    "Dropout",
    "Identity",  # it gives a constant the name of an output
    "LRN",  # the reference does not reach the last channels,
    "LpNormalization",  # has other numbers than the standard where p is 1,
    "LpPool",
    "MaxPool",  # pads at the wrong end,
    "Multinomial",
    "NonZero",  # and of a scalar,
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Resize",  # and of corners that are aligned
}
#: Operators that before opset 13 reduced the last axes together, which the reference does not.
_FLATTENING = {"Hardmax", "LogSoftmax", "Softmax"}
#: A constant may grow to this many elements by folding: more is cheaper to compute than to ship.
GROWTH = 4096


def constant_result(limit: int = SMALL, growth: int = GROWTH) -> Rule:
    """A rule that reads constants up to `limit` elements, and makes them up to `growth`."""

    def propose(build: Builder, node: ir.Node) -> Outcome:
        if _is_left(node, build.opset):
            return "it is not folded: random, quantised, unlike the reference, or with a graph"
        arrays = [constant(value, limit) for value in node.inputs]
        if any(a is None and v is not None for a, v in zip(arrays, node.inputs, strict=True)):
            return "an input is not a small constant"
        for value in node.outputs:
            if not _fits(value, max(growth, *(a.size for a in arrays if a is not None))):
                return "the result is too large, or its size is not known"
        made = evaluate(ir.serde.serialize_node(node), build.opset, arrays)
        if isinstance(made, str):
            return made
        types = [ir.DataType.from_numpy(array.dtype) for array in made]
        if any(v.dtype not in (None, t) for v, t in zip(node.outputs, types, strict=True)):
            return "the reference gives another type"
        name = _weight_name(node) or f"{node.outputs[0].name}_folded"
        return [build.constant(array, name) for array in made]

    return Rule("constant-result", frozenset({"*"}), "f(constants) = constants.", propose, CLOSE)


def _is_left(node: ir.Node, opset: int) -> bool:
    if node.op_type in _LEFT or not node.inputs or any(True for _ in subgraphs(node)):
        return True
    if node.op_type.startswith("Reduce"):  # runtimes do not agree on the mean of nothing
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        return shape is not None and 0 in list(shape)
    return node.op_type in _FLATTENING and opset < 13


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


def evaluate(
    node: onnx.NodeProto, opset: int, arrays: Sequence[NDArray[np.generic] | None]
) -> list[NDArray[np.generic]] | str:
    """The outputs of one node on constants by ONNX's reference, or in words why not."""
    proto, count = onnx.NodeProto(), len(node.output)
    proto.CopyFrom(node)
    del proto.input[:], proto.output[:]
    proto.input.extend(f"i{k}" if array is not None else "" for k, array in enumerate(arrays))
    proto.output.extend(f"o{k}" for k in range(count))
    feeds = {f"i{k}": array for k, array in enumerate(arrays) if array is not None}
    try:
        made = _session(proto.SerializeToString(), opset).run(None, feeds)
    except Exception as error:
        return f"the reference cannot evaluate it ({type(error).__name__})"
    if not all(isinstance(array, np.ndarray | np.generic) for array in made):
        return "it does not give arrays"
    return [np.asarray(array) for array in made]


@cache
def _session(node: bytes, opset: int) -> ReferenceEvaluator:
    proto = onnx.NodeProto.FromString(node)
    inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.input if name]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output]
    graph = onnx.helper.make_graph([proto], "fold", inputs, outputs)
    return evaluator(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    )
