"""Rules for the scale of attention: one factor, and that in the query's weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .contract import CLOSE
from .facts import is_constant, made_by, only_use, scalar
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule
from .weight_rules import changed

#: Types in which a factor may move through a product without harm.
_WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@rule("MatMul", contract=CLOSE)
def one_scale(build: Builder, node: ir.Node) -> Outcome:
    """MatMul(a * q, b * k) = MatMul(a b * q, k)."""
    left, right = (_scaled(value) for value in node.inputs)
    if left is None or right is None:
        return "not both operands are scaled by a number"
    (query, one), (key, two) = left, right
    if query.dtype not in _WIDE:
        return "two factors keep 16 bits from overflow and underflow"
    factor = build.constant(np.array(one * two, dtype=_numpy(query)), "scale")
    return build.again(node, build.op("Mul", query, factor, like=node.inputs[0]), key)


def _scaled(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(x, number) of x * number or x / number."""
    node = made_by(value, "Mul", "Div")
    if node is None or value is None or not only_use(value):
        return None
    one, two = node.inputs[0], node.inputs[1]
    number = scalar(two)
    if one is not None and number and _no_wider(two, one):
        return one, number if node.op_type == "Mul" else 1 / number
    number = scalar(one)
    if node.op_type == "Mul" and two is not None and number and _no_wider(one, two):
        return two, number
    return None


def _numpy(value: ir.Value) -> np.dtype[np.generic]:
    assert value.dtype is not None
    return value.dtype.numpy()


def _no_wider(number: ir.Value | None, value: ir.Value) -> bool:
    """Whether a constant of one element has no more dimensions than what it scales."""
    if number is None or number.shape is None or value.shape is None:
        return False
    return len(number.shape) <= len(value.shape)


@dataclass(frozen=True)
class Linear:
    """Movements of a product with a weight: moves(source @ under(weight) + bias)."""

    moves: tuple[ir.Node, ...]
    add: ir.Node | None
    matmul: ir.Node
    under: tuple[ir.Node, ...]
    weight: ir.Value
    bias: ir.Value | None


def linear(value: ir.Value | None) -> Linear | None:
    """What made a value, if that is a weight's product, moved about, and nothing else reads it."""
    value, moves = _below(value, "Reshape", "Transpose", "GatherElements")
    if value is None or not only_use(value):
        return None
    add = made_by(value, "Add")
    bias = _constant_operand(add) if add is not None else None
    product = value
    if add is not None:
        if bias is None:
            return None
        product = next((v for v in add.inputs if v is not bias), None)
    matmul = made_by(product, "MatMul")
    if matmul is None or product is None or not only_use(product):
        return None
    weight, under = _below(matmul.inputs[1], "Reshape", "Transpose", "Tile")
    if weight is None or not is_constant(weight) or len(weight.uses()) != 1:
        return None
    return Linear(moves, add, matmul, under, weight, bias)


def _below(value: ir.Value | None, *ops: str) -> tuple[ir.Value | None, tuple[ir.Node, ...]]:
    """What is moved about to make a value that one node reads, and the movements, last first."""
    moves: list[ir.Node] = []
    while value is not None and only_use(value):
        move = made_by(value, *ops)
        if move is None:
            break
        moves.append(move)
        value = move.inputs[0]
    return value, tuple(moves)


def _constant_operand(node: ir.Node) -> ir.Value | None:
    return next((value for value in node.inputs if is_constant(value)), None)


@rule("Mul", "Div", contract=CLOSE)
def scale_in_weight(build: Builder, node: ir.Node) -> Outcome:
    """(x @ w + b) * c = x @ (w * c) + b * c, through Reshape, Transpose, Tile, GatherElements."""
    found = _scaled_any(node)
    if found is None:
        return "it is no product with a number"
    if any(_both_scaled(use.node) for use in node.outputs[0].uses()):
        return "the MatMul that reads it makes one factor of two first"
    value, factor = found
    if value.dtype not in _WIDE:
        return "in 16 bits the factor is left where it was"
    made = linear(value)
    if made is None:
        return "what is scaled is not a weight's product that nothing else reads"
    return scaled_linear(build, made, factor)


def _both_scaled(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and all(_scaled(value) for value in node.inputs)


def _scaled_any(node: ir.Node) -> tuple[ir.Value, float] | None:
    one, two = node.inputs[0], node.inputs[1]
    if one is not None and (number := scalar(two)) and _no_wider(two, one):
        return one, number if node.op_type == "Mul" else 1 / number
    if (
        node.op_type == "Mul"
        and two is not None
        and (number := scalar(one))
        and _no_wider(one, two)
    ):
        return two, number
    return None


def scaled_linear(build: Builder, made: Linear, factor: float) -> ir.Value:
    """The same movements of the same product, its weight and bias scaled."""
    weight = _again(build, made.under, _scaled_weight(build, made.weight, factor))
    value = build.again(made.matmul, first(made.matmul), weight)
    _like(value, made.matmul)
    if made.add is not None and made.bias is not None:
        bias = _scaled_weight(build, made.bias, factor)
        value = build.op("Add", value, bias, origin=made.add)
        _like(value, made.add)
    return _again(build, made.moves, value)


def _again(build: Builder, moves: Sequence[ir.Node], value: ir.Value) -> ir.Value:
    """The same movements of another value."""
    for move in reversed(moves):
        value = build.again(move, value, *move.inputs[1:])
        _like(value, move)
    return value


def _like(value: ir.Value, node: ir.Node) -> None:
    value.type, value.shape = node.outputs[0].type, node.outputs[0].shape


def _scaled_weight(build: Builder, weight: ir.Value, factor: float) -> ir.Value:
    tensor = ir.convenience.get_const_tensor(weight)
    assert tensor is not None
    name, shape = weight.name or "weight", tuple(tensor.shape.numpy())
    scaled = changed(
        tensor,
        lambda array: np.multiply(array, array.dtype.type(factor), dtype=array.dtype),
        shape,
        name,
    )
    return build.weight(scaled, name)


@rule("Mul", "Div", contract=CLOSE)
def scale_of_scores(build: Builder, node: ir.Node) -> Outcome:
    """MatMul(q, k) * c = MatMul(q * c, k) where q's weight takes the factor."""
    found = _scaled_any(node)
    scores = made_by(found[0], "MatMul") if found is not None else None
    if found is None or scores is None or not only_use(found[0]):
        return "it does not scale a MatMul that nothing else reads"
    if first(scores).dtype not in _WIDE:
        return "in 16 bits the factor is left where it was"
    if linear(scores.inputs[0]) is None or is_constant(scores.inputs[1]):
        return "the left operand's weight cannot take the factor"
    query = first(scores)
    factor = build.constant(np.array(found[1], dtype=_numpy(query)), "scale")
    return build.again(scores, build.op("Mul", query, factor, like=query), scores.inputs[1])


ATTENTION_SCALE: tuple[Rule, ...] = (one_scale, scale_of_scores, scale_in_weight)
