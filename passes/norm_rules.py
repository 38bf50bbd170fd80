"""Rules for normalisations that exporters spell out."""

import numpy as np
import onnx_ir as ir

from .contract import CLOSE
from .facts import (
    attribute_int,
    axes_of,
    constant,
    is_constant,
    made_by,
    only_use,
    same_rank,
    scalar,
)
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule

#: Elements of the longest scale that is looked at, to see whether it is all ones.
MAX_SCALE = 1 << 16
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@rule("Div", "Mul", contract=CLOSE)
def layer_normalization(build: Builder, node: ir.Node) -> Outcome:
    """LayerNormalization(x, 1) = d / sqrt(mean(d * d) + epsilon), d = x - mean(x)."""
    parts = _over_root(node)
    if parts is None:
        return "it is not d / sqrt(mean(d * d) + epsilon)"
    centred, epsilon, axes = parts
    difference = made_by(centred, "Sub")
    mean = made_by(difference.inputs[1], "ReduceMean") if difference is not None else None
    if difference is None or mean is None or mean.inputs[0] is not difference.inputs[0]:
        return "d is not x - mean(x)"
    source = first(difference)
    if _trailing(mean) != axes or source.shape is None:
        return "the mean is over other axes"
    if build.opset < 17:
        return "LayerNormalization needs opset 17"
    return _normalised(build, "LayerNormalization", source, node.outputs[0], epsilon, axes)


@rule("Div", "Mul", contract=CLOSE)
def rms_normalization(build: Builder, node: ir.Node) -> Outcome:
    """RMSNormalization(x, 1) = x / sqrt(mean(x * x) + epsilon)."""
    parts = _over_root(node)
    if parts is None:
        return "it is not x / sqrt(mean(x * x) + epsilon)"
    if build.opset < 23:
        return "RMSNormalization needs opset 23"
    source, epsilon, axes = parts
    return _normalised(build, "RMSNormalization", source, node.outputs[0], epsilon, axes)


def _normalised(
    build: Builder,
    op_type: str,
    source: ir.Value,
    output: ir.Value,
    epsilon: float,
    axes: tuple[int, ...],
) -> Outcome:
    shape = source.shape
    dtype = source.dtype
    if dtype is None or dtype not in _FLOATS or shape is None:
        return "its type is not float or double, or its shape is not known"
    if dtype == ir.DataType.DOUBLE and float(np.float32(epsilon)) != epsilon:
        return "the attribute that holds epsilon is a float, which is not enough for a double"
    if not same_rank(source, output):
        return "a constant adds dimensions"
    sizes = [shape[axis] for axis in axes]
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) != len(sizes):
        return "the size of what is normalised is not known"
    ones = build.constant(np.ones(numbers, dtype.numpy()), "ones")
    return build.op(op_type, source, ones, axis=axes[0], epsilon=epsilon)


def _over_root(node: ir.Node) -> tuple[ir.Value, float, tuple[int, ...]] | None:
    """(x, epsilon, axes from the end) of x / sqrt(mean(x * x, axes) + epsilon)."""
    for value, divisor in _quotients(node):
        root = made_by(divisor, "Sqrt")
        shifted = made_by(root.inputs[0], "Add") if root is not None else None
        if shifted is None:
            continue
        for mean, epsilon in (shifted.inputs[:2], shifted.inputs[1::-1]):
            reduced, number = made_by(mean, "ReduceMean"), scalar(epsilon)
            if reduced is None or number is None or not _is_square(reduced.inputs[0], value):
                continue
            axes = _trailing(reduced)
            return (value, number, axes) if axes is not None else None
    return None


def _quotients(node: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """The ways to read a node as numerator / divisor: a / b, a * (1 / b), (1 / b) * a."""
    one, two = node.inputs[0], node.inputs[1]
    if one is None or two is None:
        return []
    if node.op_type == "Div":
        return [(one, two)]
    found: list[tuple[ir.Value, ir.Value]] = []
    for value, factor in ((one, two), (two, one)):
        inverse = made_by(factor, "Reciprocal", "Div")
        divisor = inverse.inputs[-1] if inverse is not None else None
        if inverse is not None and divisor is not None and _is_inverse(inverse):
            found.append((value, divisor))
    return found


def _is_inverse(node: ir.Node) -> bool:
    return node.op_type == "Reciprocal" or scalar(node.inputs[0]) == 1.0


def _is_square(value: ir.Value | None, of: ir.Value) -> bool:
    square = made_by(value, "Mul", "Pow")
    if square is None or square.inputs[0] is not of:
        return False
    return square.inputs[1] is of if square.op_type == "Mul" else scalar(square.inputs[1]) == 2.0


def _trailing(node: ir.Node) -> tuple[int, ...] | None:
    """A reduction's axes counted from the end, if it keeps them and they are the last ones."""
    axes, shape = axes_of(node), first(node).shape
    if axes is None or shape is None or attribute_int(node, "keepdims", 1) != 1:
        return None
    found = tuple(sorted(axis % len(shape) - len(shape) for axis in axes))
    return found if found == tuple(range(-len(found), 0)) and found else None


@rule("Mul", contract=CLOSE)
def scale_of_normalization(build: Builder, node: ir.Node) -> Outcome:
    """LayerNormalization(x, 1) * scale = LayerNormalization(x, scale), RMSNormalization too."""
    for index in (0, 1):
        norm = _norm(node.inputs[index], "LayerNormalization", "RMSNormalization")
        scale = node.inputs[1 - index]
        if norm is None or len(norm.inputs) > 2 or scale is None:
            continue
        if not _is_ones(norm.inputs[1]) or not only_use(norm.outputs[0]):
            return "it has a scale already, or is read elsewhere"
        if not _same_shape(scale, norm.inputs[1]) or not is_constant(scale):
            return "the scale is no weight of the normalised shape"
        return build.again(norm, norm.inputs[0], scale)
    return "no operand is a normalisation"


def _norm(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The normalisation whose result a value is: its mean and deviation are outputs too."""
    norm = made_by(value, *op_types)
    return norm if norm is not None and norm.outputs[0] is value else None


def _is_ones(value: ir.Value | None) -> bool:
    array = constant(value, MAX_SCALE)
    return array is not None and bool(np.all(array == 1))


def _same_shape(one: ir.Value, two: ir.Value | None) -> bool:
    return two is not None and one.shape is not None and one.shape == two.shape


@rule("Add", contract=CLOSE)
def bias_of_normalization(build: Builder, node: ir.Node) -> Outcome:
    """LayerNormalization(x, scale) + bias = LayerNormalization(x, scale, bias)."""
    for index in (0, 1):
        norm, bias = _norm(node.inputs[index], "LayerNormalization"), node.inputs[1 - index]
        if norm is None or len(norm.inputs) > 2 or bias is None:
            continue
        if not only_use(norm.outputs[0]):
            return "the normalised value is read elsewhere"
        if not _same_shape(bias, norm.inputs[1]) or not is_constant(bias):
            return "the bias is no weight of the normalised shape"
        return build.again(norm, norm.inputs[0], norm.inputs[1], bias)
    return "no operand is a LayerNormalization without bias"


@rule("Mul", contract=CLOSE)
def division(build: Builder, node: ir.Node) -> Outcome:
    """Division: x * (1 / y) = x / y."""
    for value, divisor in _quotients(node):
        inverse = made_by(node.inputs[1 if value is node.inputs[0] else 0], "Reciprocal")
        if inverse is not None and only_use(inverse.outputs[0]):
            return build.op("Div", value, divisor)
    return "no operand is a Reciprocal that nothing else reads"


LAYER_NORMALIZATION: tuple[Rule, ...] = (
    layer_normalization,
    scale_of_normalization,
    bias_of_normalization,
)
RMS_NORMALIZATION: tuple[Rule, ...] = (rms_normalization, scale_of_normalization)
DIVISION: tuple[Rule, ...] = (division,)
