"""Which nodes may compute in 16 bits, and why the others may not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from .check import subgraphs
from .weights import apply

#: Operators that lose too much in 16 bits: sums of squares, exponentials, angles, counts.
WIDE = frozenset(
    {
        "Cos",
        "CumSum",
        "Erf",
        "Exp",
        "Log",
        "LpNormalization",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Sin",
        "Softplus",
        "Sqrt",
        "Tan",
    }
)
#: Operators that only move or choose elements: they go with what they read.
MOVES = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
#: Operators whose attribute says what they make, and that `half_cast` gives another one.
_RETYPED = frozenset({"Cast", "ConstantOfShape"})
#: Operators that are as far off as their constant: a sum hardly notices where it is small.
_SCALING = frozenset({"Div", "Mul"})
#: As many of the least steps as a number's own bits are worth in bfloat16.
_STEPS = 128
_QUANTISED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


@dataclass(frozen=True)
class Limits:
    """The 16-bit type's range, what is known of the values, and the nodes that are to be kept."""

    dtype: ir.DataType
    largest: float
    smallest: float
    ranges: Mapping[str, float]
    keep: frozenset[str]

    @classmethod
    def of(cls, dtype: ir.DataType, ranges: Mapping[str, float], keep: frozenset[str]) -> Self:
        """The limits of float16 or bfloat16."""
        kind = ml_dtypes.finfo(dtype.numpy())
        return cls(dtype, float(kind.max), float(kind.smallest_subnormal), ranges, keep)


def place(graph: ir.Graph, limits: Limits) -> dict[ir.Node, str]:
    """For each node of the graph that computes floats, why it stays wide; "" if it need not."""
    placed = {node: _reason(node, limits) for node in graph if _floats(node)}
    known: dict[ir.Node | None, str] = {}
    for node, reason in placed.items():  # in order: what is read has been placed before
        placed[node] = known[node] = reason or _follows(node, known)
    for node, reason in placed.items():
        if not reason and _alone(node, placed):
            placed[node] = "all around it stays wide"
    return placed


def _follows(node: ir.Node, placed: Mapping[ir.Node | None, str]) -> str:
    """Why a node goes with the one that makes its operand, "" where it does not."""
    if node.op_type in MOVES and placed.get(_maker(node, 0), ""):
        return "it moves what stays wide"
    if node.op_type == "Div" and placed.get(_maker(node, 1), ""):
        return "it divides by what stays wide"
    return ""


def _maker(node: ir.Node, index: int) -> ir.Node | None:
    value = node.inputs[index]
    return value.producer() if value is not None else None


def _floats(node: ir.Node) -> bool:
    return any(value.dtype == ir.DataType.FLOAT for value in node.outputs)


def _reason(node: ir.Node, limits: Limits) -> str:
    if {node.name or node.op_type, *(value.name for value in node.outputs)} & limits.keep:
        return "it is to be kept"
    if node.domain not in ("", "ai.onnx") or any(True for _ in subgraphs(node)):
        return "it is not a standard operator, or holds a graph"
    if node.op_type in WIDE:
        return f"{node.op_type} loses too much"
    if node.op_type in _QUANTISED:
        return "it is quantised"
    return _type_reason(node, limits) or _overflow(node, limits)


def _values(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    yield from node.outputs


def _type_reason(node: ir.Node, limits: Limits) -> str:
    source = node.inputs[0] if node.inputs else None
    if node.op_type == "Cast" and (source is None or source.dtype != ir.DataType.BOOL):
        return "it counts"
    if any(isinstance(value.type, ir.SequenceType) for value in _values(node)):
        return "it reads or makes a sequence"
    schema = _schema(node)
    if schema is None or not _takes(node, schema, limits.dtype):
        return f"{node.op_type} takes no {limits.dtype.name.lower()}"
    if node.op_type not in _RETYPED and not _follows_inputs(node, schema):
        return f"{node.op_type} has its type from no input"
    return ""


def _overflow(node: ir.Node, limits: Limits) -> str:
    for value in node.outputs:
        if limits.ranges.get(value.name or "", 0.0) > limits.largest:
            return f"it reaches {limits.ranges[value.name or '']:.3g}"
    for index, value in enumerate(node.inputs):
        tensor = value.const_value if value is not None else None
        if tensor is None or value is None or value.dtype != ir.DataType.FLOAT:
            continue
        largest = apply(tensor, _largest)
        if (tensor.size > 1 or _scales(node, index, limits)) and largest > limits.largest:
            return f"weight {value.name} is beyond the range"
        if 0 < largest < limits.smallest:
            return f"{value.name} of {largest:.3g} would be 0"
        if node.op_type in _SCALING and 0 < largest < _STEPS * limits.smallest:
            return f"{value.name} of {largest:.3g} would be of few bits"
    return ""


def _scales(node: ir.Node, index: int, limits: Limits) -> bool:
    """Whether one number is a divisor or a factor: a mask's may be the range's end instead.

    What a mask multiplies is 0, or lies beyond the range by itself.
    """
    made = limits.ranges.get(node.outputs[0].name or "", 0.0)
    return (node.op_type == "Div" and index == 1) or (node.op_type == "Mul" and made > 0)


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0.0))


def _schema(node: ir.Node) -> onnx.defs.OpSchema | None:
    graph = node.graph
    version = graph.opset_imports.get("", 0) if graph is not None else 0
    try:
        return onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return None


def _follows_inputs(node: ir.Node, schema: onnx.defs.OpSchema) -> bool:
    """Whether each float that a node makes is of the type of one that it reads.

    Else an attribute says it: Constant's, EyeLike's, what a LayerNormalization keeps its mean as.
    """
    read = {str(formal.type_str) for formal in schema.inputs}
    last = len(schema.outputs) - 1
    return all(
        str(schema.outputs[min(index, last)].type_str) in read
        for index, value in enumerate(node.outputs)
        if _is_float(value)
    )


def _takes(node: ir.Node, schema: onnx.defs.OpSchema, dtype: ir.DataType) -> bool:
    """Whether the operator's schema lets its float operands be of this type."""
    wanted = f"tensor({dtype.name.lower()})"
    variables = {str(output.type_str) for output in schema.outputs[: len(node.outputs)]}
    found = [rule for rule in schema.type_constraints if rule.type_param_str in variables]
    return bool(found) and all(
        wanted in rule.allowed_type_strs
        for rule in found
        if "tensor(float)" in rule.allowed_type_strs
    )


def _alone(node: ir.Node, placed: Mapping[ir.Node, str]) -> bool:
    """Whether every float it reads is made wide, and every use of it is wide."""
    makers = list(_makers(node))
    users = [use.node for value in node.outputs for use in value.uses()]
    has_weight = len(makers) < sum(_is_float(value) for value in node.inputs)
    if not makers or not users or (has_weight and node.op_type in ("Conv", "Gemm", "MatMul")):
        return False
    return all(placed.get(n, "") for n in makers) and all(placed.get(n, "other") for n in users)


def _makers(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        maker = value.producer() if value is not None and _is_float(value) else None
        if maker is not None:
            yield maker


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT
