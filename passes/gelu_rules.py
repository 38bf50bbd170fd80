"""Rules for Gelu that exporters spell out, in whatever order they multiply."""

import math
from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from .contract import CLOSE
from .facts import made_by, only_use, same_rank, scalar
from .rules import Builder, Outcome, Rule, rule

#: Exporters write these constants with seven digits or fewer, which is too few for doubles.
_CLOSE_ENOUGH, _CLOSE_IN_DOUBLES = 1e-4, 1e-12
_DEPTH = 4


@rule("Mul", "Div", contract=CLOSE)
def gelu(build: Builder, node: ir.Node) -> Outcome:
    """Gelu(x) = x / 2 * (1 + erf(x / sqrt(2))), or with tanh(sqrt(2 / pi) * (x + 0.044715 x^3))."""
    factor, parts = factors(node.outputs[0])
    if len(parts) != 2 or not _near(factor, 0.5, node.outputs[0]):
        return "it is not a half of a product of two"
    if build.opset < 20:
        return "Gelu needs opset 20"
    for source, gate in (parts, parts[::-1]):
        tanh = _is_tanh_gate(gate, source)
        if not (tanh or _is_erf_gate(gate, source)):
            continue
        if not same_rank(source, node.outputs[0]):
            return "a constant adds dimensions"
        if tanh and source.dtype == ir.DataType.DOUBLE:
            return "the operator's own constants are floats, which are not enough for a double"
        return build.op("Gelu", source, approximate="tanh") if tanh else build.op("Gelu", source)
    return "neither factor is 1 + erf(x / sqrt(2)) or 1 + tanh(...) of the other"


def factors(value: ir.Value, depth: int = _DEPTH) -> tuple[float, list[ir.Value]]:
    """A value as a number times values: products and quotients by numbers taken apart."""
    number, node = scalar(value), made_by(value, "Mul", "Div", "Pow")
    if number is not None:
        return number, []
    if node is None or depth == 0:
        return 1.0, [value]
    one, two = node.inputs[0], node.inputs[1]
    assert one is not None
    assert two is not None
    if node.op_type == "Mul":
        (first, left), (second, right) = _inner(one, depth), _inner(two, depth)
        return first * second, left + right
    exponent = scalar(two)
    if node.op_type == "Div" and exponent:
        factor, left = _inner(one, depth)
        return factor / exponent, left
    if node.op_type == "Pow" and exponent in (2.0, 3.0):
        return 1.0, [one] * int(exponent)
    return 1.0, [value]


def _inner(value: ir.Value, depth: int) -> tuple[float, list[ir.Value]]:
    """The factors of an operand; one that is read elsewhere too would be computed twice."""
    if scalar(value) is None and not only_use(value) and made_by(value, "Pow") is None:
        return 1.0, [value]
    return factors(value, depth - 1)


def _near(number: float, wanted: float, of: ir.Value) -> bool:
    """Whether a factor of a value is the wanted one, as far as numbers of its type can tell."""
    double = of.dtype == ir.DataType.DOUBLE
    return math.isclose(number, wanted, rel_tol=_CLOSE_IN_DOUBLES if double else _CLOSE_ENOUGH)


def _one_plus(value: ir.Value, op_type: str) -> ir.Value | None:
    """The x of 1 + f(x)."""
    total = made_by(value, "Add")
    if total is None or not only_use(value):
        return None
    for one, other in (total.inputs[:2], total.inputs[1::-1]):
        inner = made_by(other, op_type)
        if scalar(one) == 1.0 and inner is not None:
            return inner.inputs[0]
    return None


def _is_erf_gate(gate: ir.Value, source: ir.Value) -> bool:
    inner = _one_plus(gate, "Erf")
    if inner is None:
        return False
    factor, parts = factors(inner)
    return _only(parts, [source]) and _near(factor, math.sqrt(0.5), inner)


def _is_tanh_gate(gate: ir.Value, source: ir.Value) -> bool:
    inner = _one_plus(gate, "Tanh")
    if inner is None:
        return False
    factor, parts = factors(inner)
    if not _near(factor, math.sqrt(2 / math.pi), inner):
        return False
    if len(parts) == 1:
        return _is_cubic(parts[0], source)
    # x * (1 + 0.044715 x^2), as some write it
    others = [part for part in parts if part is not source]
    return len(parts) == 2 and len(others) == 1 and _is_one_plus_square(others[0], source)


def _is_cubic(value: ir.Value, source: ir.Value) -> bool:
    total = made_by(value, "Add")
    if total is None:
        return False
    for one, cube in (total.inputs[:2], total.inputs[1::-1]):
        if one is source and cube is not None:
            factor, parts = factors(cube)
            return _near(factor, 0.044715, cube) and _only(parts, [source] * 3)
    return False


def _is_one_plus_square(value: ir.Value, source: ir.Value) -> bool:
    total = made_by(value, "Add")
    if total is None:
        return False
    for one, square in (total.inputs[:2], total.inputs[1::-1]):
        if scalar(one) == 1.0 and square is not None:
            factor, parts = factors(square)
            return _near(factor, 0.044715, square) and _only(parts, [source] * 2)
    return False


def _only(found: Sequence[ir.Value], wanted: Sequence[ir.Value]) -> bool:
    return Counter(map(id, found)) == Counter(map(id, wanted))


@rule("Mul", contract=CLOSE)
def swish(build: Builder, node: ir.Node) -> Outcome:
    """Swish(x) = x * sigmoid(x), the gate of SwiGLU."""
    if build.opset != 24:  # ONNX Runtime 1.32 has no kernel for it, and expands it at 24 alone
        return "Swish is of opset 24, and runtimes do not take it at later ones"
    for source, gate in (node.inputs[:2], node.inputs[1::-1]):
        sigmoid = made_by(gate, "Sigmoid")
        if sigmoid is not None and source is not None and sigmoid.inputs[0] is source:
            return build.op("Swish", source)
    return "it is not x * sigmoid(x)"


GELU: tuple[Rule, ...] = (gelu,)
SWISH: tuple[Rule, ...] = (swish,)
