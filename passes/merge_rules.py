"""Rules that make one product of several that read the same value: queries, keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .contract import CLOSE
from .facts import attribute_int, input_of, ints, is_constant, made_by, only_use
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule
from .weights import Array, read

#: Products that are merged at least and at most: queries, keys and values; gate and up.
_FEWEST, _MOST = 2, 3


@rule("MatMul", contract=CLOSE)
def merged_linear(build: Builder, node: ir.Node) -> Outcome:
    """Products of one value: x @ v, x @ w = Split(x @ [v w])."""
    group = _group(node)
    if group is None:
        return "no later products of like weights read the same"
    if build.opset < 13:
        return "Split needs opset 13"
    product = build.op("MatMul", node.inputs[0], _joined(build, [made.weight for made in group]))
    product.type = node.outputs[0].type
    sizes = build.ints(*(made.width for made in group))
    split = build.op("Split", product, sizes, outputs=len(group), axis=-1).producer()
    assert split is not None
    made = zip(group, split.outputs, strict=True)
    return {each.node.outputs[0]: part for each, part in made}


@dataclass(frozen=True)
class _Product:
    node: ir.Node
    weight: ir.Value
    width: int


def _group(node: ir.Node) -> list[_Product] | None:
    """The products with weights of one value, if this is the first of them in order."""
    source = first(node)
    beside = [use.node for use in source.uses() if use.node.graph is node.graph]
    found = [made for each in beside if (made := _product(each, source)) is not None]
    nodes = {made.node for made in found}
    if not _FEWEST <= len(found) <= _MOST or node not in nodes or node.graph is None:
        return None
    if next(other for other in node.graph if other in nodes) is not node:
        return None
    heights = {str(made.weight.shape[0]) for made in found if made.weight.shape is not None}
    kinds = {made.weight.dtype for made in found}
    return found if len(heights) == len(kinds) == 1 else None


def _product(node: ir.Node, source: ir.Value) -> _Product | None:
    if node.op_type != "MatMul" or node.domain or node.inputs[0] is not source:
        return None
    weight = node.inputs[1]
    if weight is None or not is_constant(weight) or len(weight.uses()) != 1:
        return None
    shape = weight.shape
    width = shape[1] if shape is not None and len(shape) == 2 else None
    return _Product(node, weight, width) if isinstance(width, int) else None


def _joined(build: Builder, weights: Sequence[ir.Value], axis: int = -1) -> ir.Value:
    """The weights side by side, put together when they are saved."""
    tensors = [ir.convenience.get_const_tensor(value) for value in weights]
    known = [tensor for tensor in tensors if tensor is not None]
    assert len(known) == len(tensors)
    name = f"{weights[0].name}.merged"
    shape = [*known[0].shape.numpy()]
    shape[axis] = sum(int(tensor.shape.numpy()[axis]) for tensor in known)

    def make() -> ir.TensorProtocol:
        arrays: list[Array] = [read(tensor) for tensor in known]
        return ir.tensor(np.concatenate(arrays, axis=axis), dtype=known[0].dtype, name=name)

    return build.weight(ir.LazyTensor(make, known[0].dtype, ir.Shape(shape), name=name), name)


@rule("Split")
def merged_bias(build: Builder, node: ir.Node) -> Outcome:
    """Biases of a merged product y: Split(y) + a, + b = Split(y + [a b])."""
    product = made_by(node.inputs[0], "MatMul")
    if product is None or not is_constant(product.inputs[1]) or not only_use(first(node)):
        return "it does not split a product with a weight"
    widths = ints(input_of(node, 1))
    if widths is None or not _splits_last(node):
        return "it does not split the last axis by known sizes"
    pairs = [_bias(*part) for part in zip(node.outputs, widths, strict=True)]
    known = [pair for pair in pairs if pair is not None]
    if len(known) != len(pairs):
        return "not every part gets a bias, and nothing else"
    bias = _joined(build, [other for _, other in known])
    total = build.op("Add", node.inputs[0], bias, like=first(node))
    split = build.again(node, total, *node.inputs[1:]).producer()
    assert split is not None
    made = zip(known, split.outputs, strict=True)
    return {add.outputs[0]: part for (add, _), part in made}


def _splits_last(node: ir.Node) -> bool:
    axis, shape = attribute_int(node, "axis", 0), first(node).shape
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _bias(part: ir.Value, width: int) -> tuple[ir.Node, ir.Value] | None:
    """The Add that alone reads a part in the same graph, and the bias it adds, as wide."""
    if not only_use(part):
        return None
    add = next(iter(part.uses())).node
    other = next((value for value in add.inputs if value is not part), None)
    shape = other.shape if other is not None else None
    if add.op_type != "Add" or other is None or not is_constant(other) or shape is None:
        return None
    same = add.graph is not None and add.graph is part.graph
    return (add, other) if same and shape == (width,) else None


MERGED: tuple[Rule, ...] = (merged_linear, merged_bias)
