"""Rules for what moves elements without computing: Reshape, Transpose, Unsqueeze, and shapes."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .facts import axes_of, content, input_of, ints, made_by, only_use, perm_of, reshaped
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule
from .sizes import Size, product, sizes, text

_INTEGERS = (
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Gather",
    "Mul",
    "ReduceProd",
    "Reshape",
    "Shape",
    "Slice",
    "Squeeze",
    "Sub",
    "Unsqueeze",
)


@rule(*_INTEGERS)
def known_shape(build: Builder, node: ir.Node) -> Outcome:
    """Shape arithmetic that does not depend on the input = its numbers."""
    value = node.outputs[0]
    found = content(value)
    numbers = [size.value for size in found or ()]
    known = [number for number in numbers if number is not None]
    if not numbers or len(known) != len(numbers) or value.shape is None or value.dtype is None:
        return "its numbers depend on the input, or are not known"
    array = np.array(known, dtype=value.dtype.numpy())
    return build.constant(array.reshape(() if len(value.shape) == 0 else -1), "ints")


@rule("Reshape")
def constant_shape(build: Builder, node: ir.Node) -> Outcome:
    """Reshape(x, computed shape) = Reshape(x, constant shape), 0 where a dimension is x's own."""
    if ints(input_of(node, 1)) is not None:
        return "the shape is a constant"
    source = first(node)
    before, target = sizes(source), reshaped(node)
    if before is None or target is None:
        return "a shape is not known"
    shape = reshape_to(before, target)
    if shape is None:
        return "more than one dimension is neither a number nor the input's own"
    made = build.op("Reshape", source, build.ints(*shape))
    made.type, made.shape = source.type, ir.Shape([text(size) for size in target])
    return made


def reshape_to(before: Sequence[Size], after: Sequence[Size]) -> tuple[int, ...] | None:
    """Reshape's constant input for these shapes: numbers, 0 for the input's own, at most one -1.

    None where that cannot say it, or where a dimension is 0 and would be read as a copy. Where a
    dimension that is copied is empty, as a cache is at first, -1 has no meaning: only that of the
    batch stands beside it.
    """
    if product([*before]) != product([*after]) or Size.of(0) in after:
        return None
    shape = [
        size.value
        if size.value is not None
        else (0 if axis < len(before) and before[axis] == size else -1)
        for axis, size in enumerate(after)
    ]
    if shape.count(-1) > 1 or (-1 in shape and 0 in shape[1:]):
        return None
    return tuple(shape)


@rule("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def reshape_of_reshape(build: Builder, node: ir.Node) -> Outcome:
    """Reshape(Reshape(x, a), b) = Reshape(x, b), whatever the two are called."""
    inner = made_by(node.inputs[0], "Reshape", "Squeeze", "Unsqueeze", "Flatten")
    if inner is None:
        return "its input is not a Reshape"
    if (inner.op_type, node.op_type) == ("Unsqueeze", "Unsqueeze"):
        return "two Unsqueezes become one"
    source = first(inner)
    before = sizes(source)
    after = reshaped(node) if node.op_type == "Reshape" else sizes(node.outputs[0])
    if before is None or after is None:
        return "a shape is not known"
    shape = reshape_to(before, after)
    if shape is None:
        return "more than one dimension is neither a number nor the input's own"
    return build.op("Reshape", source, build.ints(*shape))


@rule("Unsqueeze")
def unsqueeze_of_unsqueeze(build: Builder, node: ir.Node) -> Outcome:
    """Unsqueeze(Unsqueeze(x, a), b) = Unsqueeze(x, a and b)."""
    inner = made_by(node.inputs[0], "Unsqueeze")
    output, middle = node.outputs[0].shape, first(node).shape
    if inner is None or output is None or middle is None:
        return "its input is not an Unsqueeze, or the rank is not known"
    outer_axes, inner_axes = axes_of(node), axes_of(inner)
    if outer_axes is None or inner_axes is None or build.opset < 13:
        return "the axes are not constants"
    outer = {axis % len(output) for axis in outer_axes}
    kept = [axis for axis in range(len(output)) if axis not in outer]
    moved = {kept[axis % len(middle)] for axis in inner_axes}
    return build.op("Unsqueeze", first(inner), build.ints(*sorted(outer | moved)))


@rule("Transpose")
def transpose_of_transpose(build: Builder, node: ir.Node) -> Outcome:
    """Transpose(Transpose(x, p), q) = Transpose(x, p[q])."""
    inner = made_by(node.inputs[0], "Transpose")
    if inner is None:
        return "its input is not a Transpose"
    outer, before = perm_of(node), perm_of(inner)
    if outer is None or before is None:
        return "the rank is not known"
    return build.op("Transpose", first(inner), perm=[before[axis] for axis in outer])


@rule("Transpose")
def transpose_as_reshape(build: Builder, node: ir.Node) -> Outcome:
    """Transpose(x, p) = Reshape(x) where p moves only dimensions of size 1."""
    source, perm = first(node), perm_of(node)
    before = sizes(source)
    if before is None or perm is None:
        return "the shape is not known"
    wide = [axis for axis in perm if before[axis] != Size.of(1)]
    if wide != sorted(wide):
        return "it moves dimensions that may be wider than 1"
    shape = reshape_to(before, [before[axis] for axis in perm])
    if shape is None or {0, -1} <= {*shape}:  # a Transpose takes what is empty
        return "more than one dimension is neither a number nor the input's own"
    return build.op("Reshape", source, build.ints(*shape))


@rule("Reshape")
def reshape_around_transpose(build: Builder, node: ir.Node) -> Outcome:
    """Reshape(Transpose(Reshape(x, merge axes), p), s) = Reshape(Transpose(x, axes of p), s)."""
    turn = made_by(node.inputs[0], "Transpose")
    inner = made_by(first(turn), "Reshape") if turn is not None else None
    perm = perm_of(turn) if turn is not None else None
    if turn is None or inner is None or perm is None:
        return "its input is not a Transpose of a Reshape"
    if not (only_use(first(node)) and only_use(first(turn))):
        return "what is between is read elsewhere"
    before, between, after = sizes(first(inner)), sizes(first(turn)), reshaped(node)
    if before is None or between is None or after is None:
        return "a shape is not known"
    groups = merged(before, between)
    if groups is None:
        return "the first Reshape does more than merge neighbours"
    order = [axis for group in perm for axis in groups[group]]
    shape = reshape_to([before[axis] for axis in order], after)
    if shape is None:
        return "more than one dimension is neither a number nor the input's own"
    moved = build.op("Transpose", first(inner), perm=order)
    moved.type = first(inner).type
    moved.shape = ir.Shape([text(before[axis]) for axis in order])
    return build.op("Reshape", moved, build.ints(*shape))


def merged(before: Sequence[Size], after: Sequence[Size]) -> list[list[int]] | None:
    """Which neighbouring axes each axis of `after` merges, None if it does not only merge."""
    groups: list[list[int]] = []
    axis = 0
    for size in after:
        group, left = list[int](), size
        while axis < len(before) and left != Size.of(1):
            quotient = left.over(before[axis])
            if quotient is None:
                return None
            group.append(axis)
            left, axis = quotient, axis + 1
        if left != Size.of(1) or not group:
            return None
        groups.append(group)
    return groups if axis == len(before) else None


SHAPES: tuple[Rule, ...] = (
    known_shape,
    constant_shape,
    reshape_of_reshape,
    unsqueeze_of_unsqueeze,
    transpose_of_transpose,
    transpose_as_reshape,
    reshape_around_transpose,
)
