"""What is known of a value without running the model: constants, attributes, shape arithmetic."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .sizes import Size, product, sizes, times
from .weights import read

#: Constants above this many elements are weights: they are not looked into.
SMALL = 1024
#: Shape arithmetic deeper than this is left alone.
DEPTH = 64

Content = tuple[Size, ...]


def constant(value: ir.Value | None, limit: int = SMALL) -> NDArray[np.generic] | None:
    """The array of a small constant, None for all else; never reads a weight."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > limit or tensor.dtype == ir.DataType.STRING:
        return None
    return read(tensor) if isinstance(tensor, ir.ExternalTensor) else tensor.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is a weight or a constant of any size."""
    if value is None or value.is_graph_input():
        return False
    return ir.convenience.get_const_tensor(value) is not None


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiubV":
        return None
    return float(array.reshape(()).astype(np.float64))


def ints(value: ir.Value | None) -> tuple[int, ...] | None:
    """The integers in a constant of rank 0 or 1."""
    array = constant(value)
    if array is None or array.ndim > 1 or array.dtype.kind not in "iu":
        return None
    return tuple(int(item) for item in array.reshape(-1))


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or the operator's default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def attribute_ints(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list of integers in an attribute, None where it is left out."""
    attribute = node.attributes.get(name)
    return None if attribute is None else tuple(attribute.as_ints())


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def axes_of(node: ir.Node, index: int = 1) -> tuple[int, ...] | None:
    """The axes of Squeeze, Unsqueeze, Reduce*: an attribute before, an input since opset 13/18."""
    return attribute_ints(node, "axes") or ints(input_of(node, index))


def perm_of(node: ir.Node) -> tuple[int, ...] | None:
    """A Transpose's permutation; reversed axes where it is left out."""
    perm = attribute_ints(node, "perm")
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if perm is None and shape is not None:
        return tuple(reversed(range(len(shape))))
    return perm


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard node of one of these types, its attributes known, that makes a value."""
    node = value.producer() if value is not None else None
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in op_types:
        return None
    return None if is_abstract(node) else node


def is_abstract(node: ir.Node) -> bool:
    """Whether an attribute is filled in by the caller of the function around the node."""
    return any(attribute.is_ref() for attribute in node.attributes.values())


def only_use(value: ir.Value) -> bool:
    """Whether exactly one input of one node reads the value, and no output of the graph is it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def same_rank(one: ir.Value, two: ir.Value) -> bool:
    """Whether two values are known to have as many dimensions: a constant may add some."""
    return one.shape is not None and two.shape is not None and len(one.shape) == len(two.shape)


def content(value: ir.Value | None) -> Content | None:
    """The elements of an integer value of rank 0 or 1, as sizes: what shape arithmetic computes."""
    return _content(value, {}, DEPTH) if value is not None else None


def _content(
    value: ir.Value | None, memo: dict[ir.Value, Content | None], depth: int
) -> Content | None:
    if value is None or depth == 0:
        return None
    if value in memo:
        return memo[value]
    memo[value] = None
    number = ints(value)
    if number is not None:
        memo[value] = tuple(Size.of(item) for item in number)
        return memo[value]
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return None
    evaluate = _CONTENT.get(node.op_type)
    if evaluate is not None and _is_shape_like(value):
        found = evaluate(node, lambda item: _content(item, memo, depth - 1))
        memo[value] = found if found is not None and _held(found, value) else None
    return memo[value]


def _held(found: Content, value: ir.Value) -> bool:
    """Whether a value's type holds its numbers, which otherwise are others: they overflow."""
    limits = np.iinfo(np.int32 if value.dtype == ir.DataType.INT32 else np.int64)
    numbers = [size.value for size in found if size.value is not None]
    return all(int(limits.min) <= number <= int(limits.max) for number in numbers)


def _is_shape_like(value: ir.Value) -> bool:
    integral = value.dtype in (ir.DataType.INT64, ir.DataType.INT32)
    return integral and value.shape is not None and len(value.shape) <= 1


_Ask = Callable[[ir.Value | None], Content | None]


def _shape(node: ir.Node, ask: _Ask) -> Content | None:
    del ask
    source = node.inputs[0]
    found = sizes(source) if source is not None else None
    if found is None:
        return None
    end = attribute_int(node, "end", len(found))
    return found[attribute_int(node, "start", 0) : end]


def _same(node: ir.Node, ask: _Ask) -> Content | None:
    return ask(node.inputs[0])


def _gather(node: ir.Node, ask: _Ask) -> Content | None:
    data, picked = ask(node.inputs[0]), ints(node.inputs[1])
    if data is None or picked is None or not all(-len(data) <= i < len(data) for i in picked):
        return None
    return tuple(data[index] for index in picked)


def _slice(node: ir.Node, ask: _Ask) -> Content | None:
    data = ask(node.inputs[0])
    starts, ends = ints(input_of(node, 1)), ints(input_of(node, 2))
    steps = ints(input_of(node, 4)) if input_of(node, 4) is not None else (1,)
    if data is None or not starts or not ends or not steps or steps[0] <= 0:
        return None
    return data[starts[0] : ends[0] : steps[0]]


def _concat(node: ir.Node, ask: _Ask) -> Content | None:
    parts = [ask(value) for value in node.inputs]
    known = [part for part in parts if part is not None]
    return tuple(item for part in known for item in part) if len(known) == len(parts) else None


def _elementwise(combine: Callable[[Size, Size], Size | None]) -> Callable[..., Content | None]:
    def evaluate(node: ir.Node, ask: _Ask) -> Content | None:
        one, two = ask(node.inputs[0]), ask(node.inputs[1])
        if one is None or two is None or 0 in (len(one), len(two)):
            return None
        length = max(len(one), len(two))
        if len(one) not in (1, length) or len(two) not in (1, length):
            return None
        one, two = one * (length // len(one)), two * (length // len(two))
        made = [combine(a, b) for a, b in zip(one, two, strict=True)]
        known = tuple(item for item in made if item is not None)
        return known if len(known) == length else None

    return evaluate


def _reduce_prod(node: ir.Node, ask: _Ask) -> Content | None:
    data, axes = ask(node.inputs[0]), input_of(node, 1)
    if data is None or (axes is not None and ints(axes) is None):
        return None
    # without axes it multiplies all, unless this attribute says that it then does nothing
    nothing = not ints(axes) and attribute_int(node, "noop_with_empty_axes", 0)
    if nothing:
        return data
    total: Size | None = Size.of(1)
    for size in data:
        total = times(total, size) if total is not None else None
    return (total,) if total is not None else None


_CONTENT: dict[str, Callable[[ir.Node, _Ask], Content | None]] = {
    "Shape": _shape,
    "Identity": _same,
    "Cast": _same,
    "CastLike": _same,
    "Reshape": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(times),
    "Div": _elementwise(lambda a, b: a.over(b)),
    "ReduceProd": _reduce_prod,
}


def broadcast(shapes: Sequence[tuple[Size, ...] | None]) -> tuple[Size, ...] | None:
    """The shape that shapes broadcast to by numpy's rule, None where it cannot be told."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or not known:
        return None
    rank, result = max(map(len, known)), list[Size]()
    for axis in range(-rank, 0):
        found = {shape[axis] for shape in known if -axis <= len(shape)} - {Size.of(1)}
        if len(found) > 1:
            return None
        result.append(found.pop() if found else Size.of(1))
    return tuple(result)


def reshaped(node: ir.Node) -> tuple[Size, ...] | None:
    """The shape a Reshape gives: from its second input, else what is known of its output."""
    before, asked = _input_sizes(node), content(input_of(node, 1))
    if before is None or asked is None:
        return sizes(node.outputs[0])
    if not attribute_int(node, "allowzero", 0):
        zero = Size.of(0)
        if any(size == zero and axis >= len(before) for axis, size in enumerate(asked)):
            return None
        asked = tuple(before[k] if size == zero else size for k, size in enumerate(asked))
    rest = [size for size in asked if size != Size.of(-1)]
    if any(size.value is not None and size.value < 0 for size in rest):
        return None
    filled = product(before).over(product(rest)) if len(rest) < len(asked) else Size.of(1)
    if filled is None or len(asked) - len(rest) > 1:
        return sizes(node.outputs[0])
    return tuple(filled if size == Size.of(-1) else size for size in asked)


def _input_sizes(node: ir.Node) -> tuple[Size, ...] | None:
    source = node.inputs[0]
    return sizes(source) if source is not None else None


def exact_shape(node: ir.Node) -> tuple[Size, ...] | None:
    """The shape a node gives, from the shape arithmetic that asks for it."""
    match node.op_type:
        case "Reshape":
            return reshaped(node)
        case "Range":
            counts = scalar(node.inputs[0]) == 0 and scalar(node.inputs[2]) == 1
            return content(node.inputs[1]) if counts else None
        case "Expand":
            return broadcast([_input_sizes(node), content(node.inputs[1])])
        case "ConstantOfShape":
            return content(node.inputs[0])
        case "Concat":
            return _concatenated(node)
        case _:
            return None


def _concatenated(node: ir.Node) -> tuple[Size, ...] | None:
    parts = [sizes(value) if value is not None else None for value in node.inputs]
    known = [part for part in parts if part]
    if len(known) != len(parts) or not known:
        return None
    axis = attribute_int(node, "axis", 0) % len(known[0])
    total = known[0][axis]
    for part in known[1:]:
        total = total + part[axis]
    return (*known[0][:axis], total, *known[0][axis + 1 :])
