"""How a labelled axis passes one node: a handler an operator, from one of its values to the others.

A handler is given the node, a value of it with the labelled axis, and the labels; it yields the
places that get labels, with -1 where it does not tell. What no handler knows is lost, by name.
"""

from collections.abc import Iterator

import onnx_ir as ir

from .carried import Carried, Handler, Labels, Place, aligned, rank, values_of
from .carry_moves import concat, cut, expand, gather, reshape, shape, split, transpose, unsqueeze
from .facts import attribute_int, axes_of, input_of
from .regroup import LostError


def carry(node: ir.Node, place: Place, labels: Labels) -> list[Carried]:
    """The labels of the node's other values.

    Raises:
        LostError: the node mixes the axis, or is not known.
        Coarsen: units have to be joined first.
    """
    handler = _HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if handler is None:
        raise LostError(f"{node.op_type} {node.name} cannot be followed")
    return [item for item in handler(node, place, labels) if item.place != place]


def elementwise(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """All values, broadcast."""
    yield from aligned(values_of(node), rank(place[0]) - place[1], labels)


def matmul(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Columns of the right, rows of the left, the axis both are summed over, or a batch."""
    left, right, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert left is not None
    assert right is not None
    value, axis = place
    back = rank(value) - axis
    if min(rank(left), rank(right)) < 2:
        raise LostError(f"MatMul {node.name} of a vector")
    if value is left and value is right:
        raise LostError(f"MatMul {node.name} of a value with itself")
    if back > 2:
        yield from aligned(values_of(node), back, labels)
    elif (value is left and back == 1) or (value is right and back == 2):
        yield Carried((left, rank(left) - 1), labels)
        yield Carried((right, rank(right) - 2), labels)
    else:
        yield Carried((out, rank(out) - back), labels)
        side = right if back == 1 else left
        yield Carried((side, rank(side) - back), labels)


def gemm(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """As MatMul, with transposed operands and a bias."""
    left, right, out = node.inputs[0], node.inputs[1], node.outputs[0]
    bias = input_of(node, 2)
    assert left is not None
    assert right is not None
    if left is right or bias in (left, right):
        raise LostError(f"Gemm {node.name} of a value with itself")
    turned = [attribute_int(node, name, 0) for name in ("transA", "transB")]
    rows, summed = (1, 0) if turned[0] else (0, 1)
    inner, columns = (1, 0) if turned[1] else (0, 1)
    if place in ((left, summed), (right, inner)):
        yield Carried((left, summed), labels)
        yield Carried((right, inner), labels)
        return
    column = place in ((right, columns), (out, 1))
    if bias is not None and place[0] is bias:
        column = place[1] == rank(bias) - 1
    yield Carried((out, 1 if column else 0), labels)
    yield Carried((right, columns) if column else (left, rows), labels)
    if bias is not None:
        yield from aligned(iter([bias]), 1 if column else 2, labels)


def along_others(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Softmax and norms: each index of the axis for itself, where it is not what is normed."""
    softmax = node.op_type in ("Softmax", "LogSoftmax")
    flat = softmax and _opset(node) < 13  # all axes from this one on are one
    first = attribute_int(node, "axis", 1 if flat else -1) % rank(place[0])
    one = softmax and not flat
    value, axis = place
    source = node.inputs[0]
    if value not in (source, *node.outputs):
        raise LostError(f"{node.op_type} {node.name} norms the axis")
    if axis == first or (axis > first and not one):
        raise LostError(f"{node.op_type} {node.name} norms the axis")
    assert source is not None
    for each in (source, node.outputs[0]):
        yield Carried((each, axis), labels)


def _opset(node: ir.Node) -> int:
    return node.graph.opset_imports.get("", 13) if node.graph is not None else 13


def reduce(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """The axes that are not reduced."""
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    axes = axes_of(node)
    reduced = {axis % rank(source) for axis in axes or range(rank(source))}
    kept = [axis for axis in range(rank(source)) if axis not in reduced]
    keep = attribute_int(node, "keepdims", 1)
    value, axis = place
    axis = axis if value is source or keep else kept[axis]
    if axis in reduced:
        raise LostError(f"{node.op_type} {node.name} sums over the axis")
    yield Carried((source, axis), labels)
    yield Carried((out, axis if keep else kept.index(axis)), labels)


def rotary(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Heads on an axis of their own."""
    source, out = node.inputs[0], node.outputs[0]
    if place[0] not in (source, out) or rank(place[0]) != 4 or place[1] == 3:
        raise LostError(f"RotaryEmbedding {node.name} turns the axis")
    assert source is not None
    for each in (source, out):
        yield Carried((each, place[1]), labels)


_EACH = """
    Abs Add And Cast CastLike Ceil Clip Cos Div Dropout Elu Equal Erf Exp Floor Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsNaN LeakyRelu Less LessOrEqual Log Max Min Mish
    Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt
    Sub Sum Swish Tanh ThresholdedRelu Where
"""
_REDUCE = "ReduceMax ReduceMean ReduceMin ReduceL1 ReduceL2 ReduceProd ReduceSum ReduceSumSquare"
_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_EACH.split(), elementwise),
    **dict.fromkeys(_REDUCE.split(), reduce),
    "MatMul": matmul,
    "Gemm": gemm,
    "Reshape": reshape,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Squeeze": unsqueeze,
    "Expand": expand,
    "Split": split,
    "Concat": concat,
    "Softmax": along_others,
    "LogSoftmax": along_others,
    "LayerNormalization": along_others,
    "RMSNormalization": along_others,
    "Gather": gather,
    "Slice": cut,
    "Shape": shape,
    "RotaryEmbedding": rotary,
}
