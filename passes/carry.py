"""How a labelled axis passes one node: a handler an operator, from one of its values to the others.

A handler is given the node, a value of it with the labelled axis, and the labels; it yields the
places that get labels, with -1 where it does not tell. What no handler knows is lost, by name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .facts import attribute_int, axes_of, input_of, ints, perm_of
from .regroup import Coarsen, LostError, regroup

Labels = NDArray[np.int64]
Place = tuple[ir.Value, int]


@dataclass(frozen=True)
class Carried:
    """Labels that a node hands on to a place."""

    place: Place
    labels: Labels


Handler = Callable[[ir.Node, Place, Labels], Iterator[Carried]]


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


def rank(value: ir.Value) -> int:
    """The number of a value's axes."""
    if value.shape is None:
        raise LostError(f"the shape of {value.name} is not known")
    return len(value.shape)


def _values(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in (*node.inputs, *node.outputs) if value is not None)


def _size(value: ir.Value, axis: int) -> int | ir.SymbolicDim:
    assert value.shape is not None
    return value.shape[axis]


def _aligned(values: Iterator[ir.Value], back: int, labels: Labels) -> Iterator[Carried]:
    """The axis that is `back` from the end of each, by numpy's rule of broadcasting."""
    for value in values:
        axis = rank(value) - back
        if axis >= 0 and _size(value, axis) != 1:
            yield Carried((value, axis), labels)


def elementwise(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """All values, broadcast."""
    yield from _aligned(_values(node), rank(place[0]) - place[1], labels)


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
        yield from _aligned(_values(node), back, labels)
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
    turned = [attribute_int(node, name, 0) for name in ("transA", "transB")]
    rows, summed = (1, 0) if turned[0] else (0, 1)
    inner, columns = (1, 0) if turned[1] else (0, 1)
    if place in ((left, summed), (right, inner)):
        yield Carried((left, summed), labels)
        yield Carried((right, inner), labels)
        return
    column = place in ((right, columns), (out, 1)) or (place[0] is bias and place[1] != rows - 2)
    if place in ((left, rows), (out, 0)):
        column = False
    yield Carried((out, 1 if column else 0), labels)
    yield Carried((right, columns) if column else (left, rows), labels)
    if bias is not None:
        yield from _aligned(iter([bias]), 1 if column else 2, labels)


def reshape(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Axes that are split or merged."""
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    value, axis = place
    if value not in (source, out):
        raise LostError(f"Reshape {node.name} to a shape that is labelled")
    other = out if value is source else source
    if value.shape is None or other.shape is None:
        raise LostError(f"the shape of {node.name} is not known")
    found = regroup(list(value.shape), list(other.shape), axis, labels, node.name or "")
    yield Carried((other, found[0]), found[1])


def transpose(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Axes in another order."""
    perm, (value, axis) = perm_of(node), place
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    if perm is None:
        raise LostError(f"the order of Transpose {node.name} is not known")
    if value is source:
        yield Carried((out, perm.index(axis)), labels)
    else:
        yield Carried((source, perm[axis]), labels)


def unsqueeze(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Unsqueeze, and Squeeze the other way round."""
    more, less = node.outputs[0], node.inputs[0]
    if node.op_type == "Squeeze":
        more, less = less, more
    assert more is not None
    assert less is not None
    axes = axes_of(node)
    if axes is None:
        raise LostError(f"the axes of {node.op_type} {node.name} are not known")
    new = {axis % rank(more) for axis in axes}
    kept = [axis for axis in range(rank(more)) if axis not in new]
    value, axis = place
    if value is more and axis in new:
        raise LostError(f"{node.op_type} {node.name} drops the axis")
    yield Carried((less, kept.index(axis)) if value is more else (more, kept[axis]), labels)


def expand(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """The axis stays; an axis of one that is repeated has nothing behind it."""
    if ints(input_of(node, 1)) is None:
        raise LostError(f"the shape of Expand {node.name} is computed")
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    if _size(place[0], place[1]) != 1:
        yield from _aligned(iter([source, out]), rank(place[0]) - place[1], labels)


def split(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Along the axis a part each, along another all of it."""
    source = node.inputs[0]
    assert source is not None
    yield from _parts(source, node.outputs, attribute_int(node, "axis", 0), place, labels)


def concat(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """The same the other way round."""
    parts = [value for value in node.inputs if value is not None]
    yield from _parts(node.outputs[0], parts, attribute_int(node, "axis", 0), place, labels)


def _parts(
    whole: ir.Value,
    parts: Sequence[ir.Value],
    along: int,
    place: Place,
    labels: Labels,
) -> Iterator[Carried]:
    value, axis = place
    if axis != along % rank(whole):
        for each in (whole, *parts):
            yield Carried((each, axis), labels)
        return
    sizes = [size for each in parts if isinstance(size := _size(each, axis), int)]
    if len(sizes) != len(parts):
        raise LostError(f"the parts of {whole.name} have no known size")
    ends = np.cumsum([0, *sizes])
    for each, start, end in zip(parts, ends, ends[1:], strict=False):
        if value is whole:
            yield Carried((each, axis), labels[start:end])
        elif each is value:
            filled = np.full(int(ends[-1]), -1, np.int64)
            filled[start:end] = labels
            yield Carried((whole, axis), filled)


def along_others(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Softmax and norms: each index of the axis for itself, where it is not what is normed."""
    first = attribute_int(node, "axis", -1) % rank(place[0])
    one = node.op_type in ("Softmax", "LogSoftmax", "CumSum")
    value, axis = place
    source = node.inputs[0]
    if value not in (source, *node.outputs):
        raise LostError(f"{node.op_type} {node.name} norms the axis")
    if axis == first or (axis > first and not one):
        raise LostError(f"{node.op_type} {node.name} norms the axis")
    assert source is not None
    for each in (source, node.outputs[0]):
        yield Carried((each, axis), labels)


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


def gather(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Axes of the data that are not picked from."""
    data, picked, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert data is not None
    assert picked is not None
    along, more = attribute_int(node, "axis", 0) % rank(data), rank(picked) - 1
    value, axis = place
    if value is picked or (value is data and axis == along):
        raise LostError(f"Gather {node.name} picks from the axis")
    if value is out and along <= axis <= along + more:
        raise LostError(f"Gather {node.name} picks from the axis")
    behind = axis if value is data or axis < along else axis - more
    yield Carried((data, behind), labels)
    yield Carried((out, behind if behind < along else behind + more), labels)


def cut(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Slice and Pad along other axes."""
    axes = ints(input_of(node, 3))
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    if axes is None or place[1] in {axis % rank(source) for axis in axes}:
        raise LostError(f"{node.op_type} {node.name} cuts the axis")
    for each in (source, out):
        yield Carried((each, place[1]), labels)


def shape(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Sizes of other axes."""
    del labels
    size = rank(place[0])
    start, end = attribute_int(node, "start", 0), attribute_int(node, "end", size)
    if place[1] in range(size)[start:end]:
        raise LostError(f"Shape {node.name} asks for the axis")
    yield from ()


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
__all__ = ["Carried", "Coarsen", "LostError", "carry", "rank"]
