"""MatMuls whose weight is no constant matrix: experts', in a stack or taken out of one."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from .facts import attribute_int, input_of, is_constant, made_by, scalar
from .sites import MIN_DIM, Layer, is_weighted

#: What only moves elements of its first input.
MOVES = (
    "Cast", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
REASON = "its weight is no matrix of its own: weights of experts stay in float"


def experts(model: ir.Model) -> tuple[Layer, ...]:
    """Every MatMul and Gemm of the main graph with a constant weight that `sites.find` does not
    take for a layer; each refused.

    A stack of weights is as many as it is deep; one that each token picks is one. What is thinner
    than a tile (the frequencies of rotary positions) is none.
    """
    return tuple(_layers(model))


@dataclass(frozen=True)
class Stack:
    """Weights of experts, `elements` of them in all; a token goes through `share` of them."""

    name: str
    elements: int
    share: float = 1.0


def stacks(model: ir.Model) -> tuple[Stack, ...]:
    """What the layers of `experts` are taken out of, each once.

    Where a router chooses (TopK of as many as the stack is deep) a token goes through those alone,
    unless a MatMul takes the whole stack.
    """
    routes, found = dict(_routes(model)), dict[str, Stack]()
    for node, weight, stack in _weights(model):
        sizes = stack.shape.numpy() if stack.shape is not None and stack.shape.is_static() else ()
        if len(sizes) < 2 or min(sizes[-2:]) < MIN_DIM:
            continue
        whole = (_sizes(weight) or (0,))[0] == sizes[0] and node.op_type == "MatMul"
        share = 1.0 if whole else routes.get(int(sizes[0]), 1.0)
        found.setdefault(stack.name or "", Stack(stack.name or "", prod(map(int, sizes)), share))
    return tuple(found.values())


def _routes(model: ir.Model) -> Iterator[tuple[int, float]]:
    """The share that each TopK chooses, by how many it chooses from."""
    for node in model.graph:
        scores = node.inputs[0] if node.op_type == "TopK" and not node.domain else None
        many = scores.shape[-1] if scores is not None and scores.shape else None
        few = scalar(input_of(node, 1)) if isinstance(many, int) else None
        if isinstance(many, int) and few:
            yield many, few / many


def _layers(model: ir.Model) -> Iterator[Layer]:
    for node, weight, stack in _weights(model):
        count, k, n = _sizes(weight) or _sizes(stack) or (0, 0, 0)
        if min(k, n) >= MIN_DIM:
            turned = attribute_int(node, "transB", 0) == 1
            k, n = (n, k) if turned else (k, n)
            yield Layer(node.name or "", weight.name or "", k, n, turned, REASON, count=count)


def _weights(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Value, ir.Value]]:
    """The nodes, what each multiplies by, and the constant that that is of."""
    for node in model.graph:
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm"):
            continue
        weight = input_of(node, 1)
        stack = None if is_weighted(node) or is_constant(node.inputs[0]) else _stack(weight)
        if weight is not None and stack is not None:
            yield node, weight, stack


def _stack(weight: ir.Value | None) -> ir.Value | None:
    """The constant that a weight is, or is part of; None where the graph computes it."""
    while weight is not None and not is_constant(weight):
        moved = made_by(weight, *MOVES)
        weight = moved.inputs[0] if moved is not None else None
    return weight


def _sizes(value: ir.Value) -> tuple[int, int, int] | None:
    """How many matrices a value is and their k and n, None where the graph does not say."""
    sizes = [each if isinstance(each, int) else 0 for each in value.shape or ()]
    if len(sizes) < 2 or 0 in sizes[-2:]:
        return None
    return prod(sizes[:-2]) or 1, sizes[-2], sizes[-1]
