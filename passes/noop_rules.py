"""Rules for nodes that do nothing."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .facts import (
    attribute_int,
    axes_of,
    broadcast,
    constant,
    content,
    input_of,
    ints,
    made_by,
    perm_of,
    scalar,
)
from .rules import Builder, Outcome, Rule, rule
from .sizes import Size, sizes

#: Casts that keep every value of the first type.
_WIDER = {
    "BOOL": {"UINT8", "INT8", "INT32", "INT64", "FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE"},
    "UINT8": {"INT32", "INT64", "FLOAT16", "FLOAT", "DOUBLE"},
    "INT8": {"INT32", "INT64", "FLOAT16", "FLOAT", "DOUBLE"},
    "INT32": {"INT64", "DOUBLE"},
    "FLOAT16": {"FLOAT", "DOUBLE"},
    "BFLOAT16": {"FLOAT", "DOUBLE"},
    "FLOAT": {"DOUBLE"},
}


def first(node: ir.Node) -> ir.Value:
    """A node's first input, which its operator requires."""
    value = node.inputs[0]
    assert value is not None
    return value


@rule("Identity")
def identity(build: Builder, node: ir.Node) -> Outcome:
    """Identity(x) = x."""
    del build
    source = first(node)
    pinned = source.producer() is None or source.is_graph_output()
    if node.outputs[0].is_graph_output() and (pinned or source.graph is not node.graph):
        return "it gives an input or another output the output's name"
    return source


@rule("Dropout")
def dropout(build: Builder, node: ir.Node) -> Outcome:
    """Dropout(x) = x outside training."""
    training = constant(input_of(node, 2))
    if input_of(node, 2) is not None and (training is None or bool(training.any())):
        return "it may train"
    if build.opset < 7:
        return "before opset 7 it trains unless told otherwise"
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its mask is read"
    return first(node)


@rule("Cast", "CastLike")
def cast_to_same(build: Builder, node: ir.Node) -> Outcome:
    """Cast(x, T) = x where x is of type T."""
    del build
    source, target = first(node), _target(node)
    if source.dtype is None or target is None:
        return "a type is not known"
    return source if source.dtype == target else f"it casts {source.dtype} to {target}"


def carry(node: ir.Node, value: ir.Value, *names: str) -> ir.Value:
    """Give the node that makes `value` the attributes of these names that `node` has."""
    made = value.producer()
    for name in names:
        if made is not None and name in node.attributes:
            made.attributes.add(node.attributes[name])
    return value


def _target(node: ir.Node) -> ir.DataType | None:
    if node.op_type == "Cast":
        return ir.DataType(attribute_int(node, "to", 0))
    like = node.inputs[1]
    return None if like is None else like.dtype


@rule("CastLike")
def cast_like(build: Builder, node: ir.Node) -> Outcome:
    """CastLike(x, y) = Cast(x, type of y)."""
    target = _target(node)
    if target is None:
        return "the type is not known"
    made = build.op("Cast", first(node), to=int(target))
    return carry(node, made, "saturate", "round_mode")


@rule("Cast")
def cast_of_cast(build: Builder, node: ir.Node) -> Outcome:
    """Cast(Cast(x, wider), T) = Cast(x, T)."""
    inner = made_by(node.inputs[0], "Cast")
    if inner is None:
        return "its input is not a Cast"
    source, between = first(inner), first(node).dtype
    if source.dtype is None or between is None:
        return "a type is not known"
    if between.name not in _WIDER.get(source.dtype.name, ()):
        return f"{between} cannot hold every {source.dtype}"
    if _target(node) == ir.DataType.STRING:
        return "how a number is written depends on its type"
    made = build.op("Cast", source, to=attribute_int(node, "to", 0))
    return carry(node, made, "saturate", "round_mode")


@rule("Transpose")
def transpose_none(build: Builder, node: ir.Node) -> Outcome:
    """Transpose(x, 0 1 2 ...) = x."""
    del build
    perm = perm_of(node)
    if perm is None:
        return "the rank is not known"
    return first(node) if perm == tuple(range(len(perm))) else f"it permutes {perm}"


@rule("Reshape", "Expand", "Squeeze", "Unsqueeze", "Flatten")
def same_shape(build: Builder, node: ir.Node) -> Outcome:
    """Reshape(x, shape of x) = Expand(x, shape of x) = x."""
    del build
    source = first(node)
    before, after = sizes(source), sizes(node.outputs[0])
    if before is None:
        return "the input's shape is not known"
    asked = content(input_of(node, 1)) if node.op_type in ("Reshape", "Expand") else None
    if node.op_type == "Expand" and asked is not None:
        after = broadcast([before, asked])
    elif node.op_type == "Reshape" and asked is not None and _literal(asked):
        after = asked
    return source if before == after else "the shapes differ or are not known"


def _literal(shape: Sequence[Size]) -> bool:
    """Whether a Reshape's shape holds no 0 (copy) and no -1 (the rest)."""
    return all(size.value is None or size.value > 0 for size in shape)


@rule("Slice")
def slice_all(build: Builder, node: ir.Node) -> Outcome:
    """Slice(x, from 0, to the end, step 1) = x."""
    del build
    source = first(node)
    before, starts, ends = sizes(source), ints(input_of(node, 1)), content(input_of(node, 2))
    if before is None or starts is None or ends is None:
        return "shape, starts or ends are not known"
    axes = ints(input_of(node, 3)) if input_of(node, 3) is not None else tuple(range(len(starts)))
    steps = ints(input_of(node, 4)) if input_of(node, 4) is not None else (1,) * len(starts)
    if axes is None or steps is None or any(starts) or set(steps) - {1}:
        return "it does not start at 0 with step 1"
    whole = all(
        end == before[axis] or _reaches(end, before[axis])
        for axis, end in zip(axes, ends, strict=True)
    )
    return source if whole else "it cuts something off"


def _reaches(end: Size, size: Size) -> bool:
    limit = end.value
    if limit is None:
        return False
    return limit >= 2**31 - 1 or (size.value is not None and limit >= size.value)


@rule("Concat", "Sum", "Max", "Min", "Mean")
def of_one(build: Builder, node: ir.Node) -> Outcome:
    """Concat(x) = Sum(x) = Max(x) = Min(x) = Mean(x) = x."""
    del build
    return first(node) if len(node.inputs) == 1 else "it has several inputs"


@rule("Pad")
def pad_none(build: Builder, node: ir.Node) -> Outcome:
    """Pad(x, 0) = x."""
    del build
    pads = ints(input_of(node, 1))
    if not pads or any(pads):
        return "it pads, or its pads are not known"
    return first(node)


#: op type -> the neutral element, and whether it may stand on the left.
_NEUTRAL = {
    "Add": (0.0, True),
    "Sub": (0.0, False),
    "Mul": (1.0, True),
    "Div": (1.0, False),
    "Pow": (1.0, False),
    "And": (1.0, True),
    "Or": (0.0, True),
}


@rule(*_NEUTRAL)
def neutral(build: Builder, node: ir.Node) -> Outcome:
    """No effect: x + 0 = x - 0 = x * 1 = x / 1 = x ** 1 = x and true = x or false = x."""
    del build
    element, either = _NEUTRAL[node.op_type]
    for index, other in ((0, 1), (1, 0))[: 2 if either else 1]:
        source, second = node.inputs[index], node.inputs[other]
        if source is None or second is None or not _all_equal(second, element):
            continue
        if second.shape is not None and len(second.shape) == 0:
            return source
        shapes = sizes(source), sizes(second)
        return source if _stays(shapes) else "it broadcasts, or a shape is not known"
    return "neither operand is neutral"


def _stays(shapes: Sequence[tuple[Size, ...] | None]) -> bool:
    """Whether the first of these shapes is known to be what all broadcast to."""
    return shapes[0] is not None and broadcast(shapes) == shapes[0]


def _all_equal(value: ir.Value, element: float) -> bool:
    array = constant(value)
    return array is not None and array.size > 0 and bool(np.all(array == element))


@rule("Not", "Neg")
def twice(build: Builder, node: ir.Node) -> Outcome:
    """Not(Not(x)) = Neg(Neg(x)) = x."""
    del build
    inner = made_by(node.inputs[0], node.op_type)
    return first(inner) if inner is not None else f"its input is not a {node.op_type}"


@rule("Squeeze", "Unsqueeze")
def there_and_back(build: Builder, node: ir.Node) -> Outcome:
    """Squeeze(Unsqueeze(x, axes), axes) = Unsqueeze(Squeeze(x, axes), axes) = x."""
    del build
    other = "Squeeze" if node.op_type == "Unsqueeze" else "Unsqueeze"
    inner = made_by(node.inputs[0], other)
    if inner is None:
        return f"its input is not a {other}"
    axes = axes_of(node)
    if axes is None or axes != axes_of(inner):
        return "the axes differ or are not known"
    return first(inner)


@rule("Where")
def where_known(build: Builder, node: ir.Node) -> Outcome:
    """Where(true, x, y) = x, Where(false, x, y) = y."""
    del build
    known = scalar(node.inputs[0])
    if known is None:
        return "the condition is not one constant"
    picked, other = (node.inputs[1], node.inputs[2])[:: 1 if known else -1]
    if picked is None or other is None:
        return "an operand is left out"
    shapes = [sizes(value) for value in (picked, other, first(node))]
    return picked if _stays(shapes) else "it broadcasts, or a shape is not known"


NOOP: tuple[Rule, ...] = (
    identity,
    dropout,
    cast_to_same,
    cast_like,
    cast_of_cast,
    transpose_none,
    same_shape,
    slice_all,
    of_one,
    pad_none,
    neutral,
    twice,
    there_and_back,
    where_known,
)
