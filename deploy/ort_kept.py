"""Logits of the places that are asked for: a prompt's last one is all that writing text needs.

A head is a fifth of a small language model's multiply-adds, over half where the vocabulary is
large, and its logits are the most memory that a prompt takes. An engine computes them of all places
unless `logits_to_keep` says of how many of the last (name and meaning are transformers' own).
"""

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from .backend import EXACT, Promise
from .graph import array, constant, insert, integer, made_by, only_use, scalar
from .ort_int8 import MICROSOFT
from .ort_session import KEEP

_LOGITS, _CACHE = "logits", "past_"
_TIME = 1
_END = np.array([np.iinfo(np.int64).max])
#: Operators whose first input's rows become their output's, each on its own.
_HEADS = {
    "": ("MatMul", "MatMulInteger"),
    MICROSOFT: ("FusedMatMul", "MatMulNBits", "MatMulIntegerToFloat"),
}
#: What may stand between a head and the logits: a bias, a factor, a soft cap, a cast.
_BY_ELEMENT = ("Add", "Sub", "Mul", "Div", "Tanh", "Cast", "Identity")


class KeepLogits(ir.passes.InPlacePass):
    """The head of a graph with a cache reads the last `logits_to_keep` places of its input."""

    contract: ClassVar[Promise] = EXACT

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Slice what the head reads."""
        graph = model.graph
        inputs = {value.name or "" for value in graph.inputs}
        cached = any(name.startswith(_CACHE) for name in inputs)
        logits = next((value for value in graph.outputs if value.name == _LOGITS), None)
        between: list[ir.Value] = []
        free = cached and KEEP not in inputs | graph.initializers.keys()
        head = _head(logits, between) if free and logits and not logits.uses() else None
        if head is None:
            return ir.passes.PassResult(model, modified=False)
        _read_last(graph, _before_rounding(head, between))
        for value in between:
            _unknown(value)
        return ir.passes.PassResult(model, modified=True)


def _head(value: ir.Value, between: list[ir.Value]) -> ir.Node | None:
    """The product that makes the logits; what it makes and what follows it, but them, is noted."""
    node = value.producer()
    while node is not None and not node.domain and node.op_type in _BY_ELEMENT:
        rest = [each for each in node.inputs if each is not None and constant(each) is None]
        others = [found for each in node.inputs if (found := constant(each)) is not None]
        if len(rest) != 1 or not all(_flat(each.shape) for each in others):
            return None
        if only_use(rest[0]) is None:
            return None
        between.append(rest[0])
        node = rest[0].producer()
    return node if node is not None and _is_head(node) else None


def _is_head(node: ir.Node) -> bool:
    x = node.inputs[0] if node.op_type in _HEADS.get(node.domain, ()) else None
    if x is None or x.shape is None or len(x.shape) != 3 or len(node.outputs) != 1:
        return False
    if any(integer(node, name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        return False
    others = [constant(each) for each in node.inputs[1:] if each is not None]
    return all(each is not None and (each.ndim < 3 or _packed(node)) for each in others)


def _before_rounding(head: ir.Node, between: list[ir.Value]) -> ir.Node:
    """The node whose input is sliced: what rounds all of the head's input by one step is behind it.

    ONNX Runtime writes no valid graph of a Slice after DequantizeLinear from opset 21 on.
    """
    node, value = head, head.inputs[0]
    while value is not None and only_use(value) is not None:
        made = made_by(value, "DequantizeLinear", "QuantizeLinear")
        source = made.inputs[0] if made is not None else None
        if made is None or source is None or source.shape is None:
            break
        if any(scalar(each) is None for each in made.inputs[1:] if each is not None):
            break
        between.append(value)
        node, value = made, source
    return node


def _packed(node: ir.Node) -> bool:
    """Whether its weight's shape [N, blocks, bytes] is a matter of storage."""
    return node.op_type == "MatMulNBits"


def _flat(shape: tuple[int, ...]) -> bool:
    """Whether a constant of this shape is the same at every place."""
    return len(shape) < 2 or shape[-2] == 1


def _read_last(graph: ir.Graph, head: ir.Node) -> None:
    x = head.inputs[0]
    assert x is not None
    assert x.shape is not None
    keep = array(graph, KEEP, np.zeros(1, np.int64))
    graph.inputs.append(keep)
    start = insert(head, "Neg", [keep], name=f"{KEEP}.start", like=keep)
    bounds = array(graph, f"{KEEP}.end", _END), array(graph, f"{KEEP}.axis", np.array([_TIME]))
    last = insert(head, "Slice", [x, start, *bounds], name=f"{x.name}.kept")
    last.type, last.shape = x.type, ir.Shape(list(x.shape))
    _unknown(last)
    head.replace_input_with(0, last)


def _unknown(value: ir.Value) -> None:
    """How many places it has is known when it runs."""
    if value.shape is not None:
        sizes = list(value.shape)
        sizes[_TIME] = ir.SymbolicDim("kept")
        value.shape = ir.Shape(sizes)
