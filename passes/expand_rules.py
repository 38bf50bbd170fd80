"""Rules that keep what is small small: broadcasting is left to the operator that needs it."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .facts import attribute_int, axes_of, broadcast, constant, content, input_of, made_by
from .grids import grid
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule
from .sizes import Size, sizes

#: Operators that broadcast their operands by numpy's rule.
BROADCASTING = (
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Where",
    "Xor",
)
_UNARY = ("Abs", "Cast", "Exp", "IsNaN", "Log", "Neg", "Not", "Reciprocal", "Sqrt")
#: Numbers that every runtime chooses between; ONNX Runtime multiplies others too.
_CHOSEN = (
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
)
_REDUCING = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")


@rule(*BROADCASTING)
def needless_expand(build: Builder, node: ir.Node) -> Outcome:
    """f(Expand(x), y) = f(x, y) where f broadcasts x as far by itself."""
    inputs, expanded = _without_expand(node)
    if not expanded:
        return "no operand is an Expand"
    reached = broadcast([_sizes(value) for value in inputs])
    if reached is None or reached != sizes(node.outputs[0]):
        return "the result would be smaller, or a shape is not known"
    return build.again(node, *inputs)


@rule(*BROADCASTING)
def expand_after(build: Builder, node: ir.Node) -> Outcome:
    """f(Expand(x, s), y) = Expand(f(x, y), s) where the result is of shape s."""
    inputs, expanded = _without_expand(node)
    if not expanded:
        return "no operand is an Expand"
    if broadcast([_sizes(value) for value in inputs]) is None:
        return "a shape is not known"
    after = sizes(node.outputs[0])
    for expand in expanded:
        if after is not None and sizes(expand.outputs[0]) == after:
            return build.op("Expand", build.again(node, *inputs), expand.inputs[1])
    return "the result has another shape than the Expand"


def _without_expand(node: ir.Node) -> tuple[list[ir.Value | None], list[ir.Node]]:
    inputs: list[ir.Value | None] = []
    expanded: list[ir.Node] = []
    for value in node.inputs:
        expand = made_by(value, "Expand")
        inputs.append(first(expand) if expand is not None else value)
        if expand is not None:
            expanded.append(expand)
    return inputs, expanded


def _sizes(value: ir.Value | None) -> tuple[Size, ...] | None:
    return sizes(value) if value is not None else None


@rule(*_UNARY)
def expand_after_unary(build: Builder, node: ir.Node) -> Outcome:
    """f(Expand(x, s)) = Expand(f(x), s)."""
    expand = made_by(node.inputs[0], "Expand")
    if expand is None:
        return "its input is not an Expand"
    return build.op("Expand", build.again(node, first(expand)), expand.inputs[1])


@rule("Expand")
def expand_of_expand(build: Builder, node: ir.Node) -> Outcome:
    """Expand(Expand(x, s), t) = Expand(x, t) where t alone gives the shape."""
    inner = made_by(node.inputs[0], "Expand")
    if inner is None:
        return "its input is not an Expand"
    reached = broadcast([_sizes(inner.inputs[0]), content(node.inputs[1])])
    if reached is None or reached != sizes(node.outputs[0]):
        return "the first Expand is needed, or a shape is not known"
    return build.op("Expand", first(inner), node.inputs[1])


@rule(*_REDUCING)
def expand_after_reduce(build: Builder, node: ir.Node) -> Outcome:
    """Reduce(Expand(x, s), a) = Expand(Reduce(x, a), s with 1 at a) where a was not expanded."""
    expand, axes = made_by(node.inputs[0], "Expand"), axes_of(node)
    if expand is None or axes is None or not axes:
        return "its input is not an Expand, or the axes are not known"
    before, after, asked = _sizes(expand.inputs[0]), _sizes(node.inputs[0]), expand.inputs[1]
    keep = node.attributes.get("keepdims")
    if before is None or after is None or (keep is not None and keep.as_int() == 0):
        return "a shape is not known, or the reduced axes are dropped"
    reduced = {axis % len(after) for axis in axes}
    lead = len(after) - len(before)
    if any(axis < lead or before[axis - lead] != after[axis] for axis in reduced):
        return "it reduces what was expanded"
    if content(asked) is None or len(content(asked) or ()) != len(after):
        return "the shape it expands to is not known"
    axes_left = [axis - len(after) for axis in sorted(reduced)]
    small = _reduce(build, node, first(expand), axes_left)
    mask = np.array([axis in reduced for axis in range(len(after))])
    shape = build.op("Where", build.constant(mask, "mask"), build.ints(1), asked, like=asked)
    return build.op("Expand", small, shape)


def _reduce(build: Builder, node: ir.Node, source: ir.Value, axes: Sequence[int]) -> ir.Value:
    if "axes" in node.attributes:
        return build.again(node, source, axes=axes)
    return build.again(node, source, build.ints(*axes))


@rule("And")
def and_true(build: Builder, node: ir.Node) -> Outcome:
    """And(x, Expand(true, s)) = Expand(x, s)."""
    for index in (0, 1):
        expand = made_by(node.inputs[index], "Expand")
        known = constant(input_of(expand, 0)) if expand is not None else None
        if expand is None or known is None or known.size != 1 or not bool(known.all()):
            continue
        other = node.inputs[1 - index]
        if other is None or other.shape is None or known.ndim > len(other.shape):
            return "what is true may add dimensions"
        return build.op("Expand", other, expand.inputs[1])
    return "no operand is known to be true everywhere"


@rule("GreaterOrEqual")
def index_not_negative(build: Builder, node: ir.Node) -> Outcome:
    """GreaterOrEqual(0 1 2 ..., 0) = true."""
    counted, bound = grid(node.inputs[0]), constant(node.inputs[1])
    if counted is None or bound is None or bound.size != 1:
        return "its left side does not count up from 0, or its right side is no constant"
    if float(bound.reshape(()).astype(np.float64)) > 0 or node.inputs[0] is None:
        return "it is compared with more than 0"
    if bound.ndim > len(counted.shape):
        return "its right side adds dimensions"
    shape = build.op("Shape", node.inputs[0])
    shape.dtype = ir.DataType.INT64
    shape.shape = ir.Shape([len(counted.shape)])
    return build.op("Expand", build.constant(np.array(True), "true"), shape)


@rule("GatherND")
def gather_everything(build: Builder, node: ir.Node) -> Outcome:
    """GatherND(x, every index of x in order) = x, with dimensions of size 1 put in."""
    data, joined = sizes(first(node)), made_by(node.inputs[1], "Concat")
    batch = node.attributes.get("batch_dims")
    if data is None or joined is None or (batch and batch.as_int()) or build.opset < 13:
        return "its indices are not put together by a Concat, or a shape is not known"
    parts = [grid(value) for value in joined.inputs]
    grids = [part for part in parts if part is not None]
    index_shape = sizes(joined.outputs[0])
    if len(grids) != len(parts) or len(grids) != len(data) or index_shape is None:
        return "an index does not count up from 0"
    if attribute_int(joined, "axis", -1) not in (-1, len(index_shape) - 1):
        return "it puts rows of indices together, not the numbers of one index"
    axes = [part.axis for part in grids]
    whole = all(part.length == size for part, size in zip(grids, data, strict=True))
    if axes != sorted(set(axes)) or not whole or index_shape[-1] != Size.of(len(data)):
        return "the indices are not all of x in order"
    lead = index_shape[:-1]
    missing = [axis for axis in range(len(lead)) if axis not in axes]
    opened = build.op("Unsqueeze", first(node), build.ints(*missing)) if missing else first(node)
    if any(lead[axis] != Size.of(1) for axis in missing):
        return "it repeats x"
    return opened


@rule("Expand")
def constant_expand(build: Builder, node: ir.Node) -> Outcome:
    """Expand(x, computed shape) = Expand(x, constant), 1 where a dimension stays x's own."""
    asked = input_of(node, 1)
    if constant(asked) is not None:
        return "the shape is a constant"
    before, after = sizes(first(node)), sizes(node.outputs[0])
    if before is None or after is None:
        return "a shape is not known"
    lead = len(after) - len(before)
    padded = (*(Size.of(1) for _ in range(lead)), *before)
    shape = [1 if old == new else new.value for old, new in zip(padded, after, strict=True)]
    numbers = [number for number in shape if number is not None]
    if len(numbers) != len(shape):
        return "it repeats as often as the input says"
    return build.op("Expand", first(node), build.ints(*numbers))


@rule("Mul")
def mask_by_choice(build: Builder, node: ir.Node) -> Outcome:
    """Cast(c) * k = Where(c, k, 0), Cast(Not(c)) * k = Where(c, 0, k), of a condition c."""
    for index in (0, 1):
        cast, factor = made_by(node.inputs[index], "Cast"), node.inputs[1 - index]
        number = constant(factor)
        if cast is None or factor is None or number is None or number.size != 1:
            continue
        inverse = made_by(cast.inputs[0], "Not")
        condition = inverse.inputs[0] if inverse is not None else cast.inputs[0]
        if condition is None or condition.dtype != ir.DataType.BOOL:
            return "what is cast is no condition"
        if factor.dtype not in _CHOSEN:
            return "runtimes have no Where of this type"
        if not np.isfinite(number.astype(np.float64)).all():
            return "0 times the number is not 0"
        zero = build.constant(np.zeros_like(number), "zero")
        chosen = (zero, factor) if inverse is not None else (factor, zero)
        return build.op("Where", condition, *chosen)
    return "no operand is the Cast of a condition"


EXPANDS: tuple[Rule, ...] = (
    needless_expand,
    expand_after,
    expand_after_unary,
    expand_of_expand,
    constant_expand,
    expand_after_reduce,
    and_true,
    index_not_negative,
    gather_everything,
    mask_by_choice,
)
