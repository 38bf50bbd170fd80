"""Where a cache lies in a graph: how it grows, and what of the new tokens its steps can go to."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .facts import attribute_int, axes_of, made_by, only_use, perm_of, scalar

#: More steps than any attention has between a cache and its MatMul.
STEPS = 8
_LAST_TWO = (0, 1, 3, 2)


@dataclass(frozen=True)
class Joined:
    """`concat(past, new)` along the tokens, an output of the graph; Casts may lie between."""

    past: ir.Value
    new: ir.Value
    concat: ir.Node
    present: ir.Value


@dataclass(frozen=True)
class Factor:
    """Where a factor of each channel of a cache can go instead: q, or what p @ v gives.

    It is the input `place` of `node`, or its output where that is None; each head of the cache is
    there `repeat` times.
    """

    node: ir.Node
    place: int | None
    repeat: int


def joined(graph: ir.Graph, past: str, present: str) -> Joined | str:
    """How the input `past` grows to the output `present`; why it is not seen to."""
    value = next((each for each in graph.inputs if each.name == past), None)
    output = next((each for each in graph.outputs if each.name == present), None)
    if value is None or output is None:
        return "it is no input and output of the graph"
    if value.shape is None or len(value.shape) != 4:
        return "it is not keys or values of heads"
    source = _only_reader(value, "Cast")
    narrow = source.outputs[0] if source is not None else value
    concat = _only_reader(narrow, "Concat")
    if concat is None:
        return f"it is read by {_words(narrow)}, not joined with the new tokens alone"
    new = concat.inputs[1] if len(concat.inputs) == 2 else None
    if new is None or concat.inputs[0] is not narrow or _axis(concat) != 2:
        return f"{concat.name} does not put the new tokens after it"
    cast = made_by(output, "Cast")
    if concat.outputs[0] is not output and (
        cast is None or cast.inputs[0] is not concat.outputs[0]
    ):
        return f"what {concat.name} joins is not {present}"
    return Joined(value, new, concat, output)


def reader(value: ir.Value) -> Factor | None:
    """The MatMul of attention that alone reads keys, or values, [batch, heads, tokens, width]."""
    turned, repeat, heads = False, 1, _size(value, 1)
    for _ in range(STEPS):
        uses = [use for use in value.uses() if use.node.op_type != "Shape"]
        if len(uses) != 1 or uses[0].node.domain not in ("", "ai.onnx"):
            return None
        node, place = uses[0]
        if node.op_type == "MatMul" and place == 1:
            return _factor(node, turned, repeat)
        if node.op_type == "Attention" and place in (1, 2) and not turned:
            return _operator(node, place, heads)
        after = node.outputs[0]
        if node.op_type == "Unsqueeze" and axes_of(node) == (2,) and not turned:
            merged = _repeated(after)
            if merged is None or heads is None:
                return None
            repeat, value = merged[1] // heads, merged[0]
        elif node.op_type == "Transpose" and perm_of(node) == _LAST_TWO and not turned:
            turned, value = True, after
        elif node.op_type == "Mul" and any(scalar(each) is not None for each in node.inputs):
            value = after
        else:
            return None
    return None


def _operator(node: ir.Node, place: int, heads: int | None) -> Factor | None:
    """Of the standard operator, its heads apart and nothing of it kept."""
    query = node.inputs[0]
    asked = _size(query, 1) if query is not None and _rank(query) == 4 else None
    if asked is None or heads is None or any(node.inputs[4:6]):
        return None
    return _factor(node, place == 1, asked // heads)


def _factor(node: ir.Node, keys: bool, repeat: int) -> Factor | None:
    """Of keys q, before it is scaled; of values what comes out, hidden rows being 0 by then."""
    if keys:
        return _query(node, repeat)
    uses = list(node.outputs[0].uses())
    after = uses[0].node if len(uses) == 1 and uses[0].node.op_type == "Where" else node
    if after is not node and not any(scalar(each) == 0.0 for each in after.inputs[1:]):
        after = node
    given = node.outputs[0].is_graph_output() or after.outputs[0].is_graph_output()
    return None if given else Factor(after, None, repeat)


def _query(node: ir.Node, repeat: int) -> Factor:
    scaled = made_by(node.inputs[0], "Mul")
    if scaled is not None and only_use(scaled.outputs[0]):
        places = [at for at, each in enumerate(scaled.inputs) if scalar(each) is None]
        if len(places) == 1:
            return Factor(scaled, places[0], repeat)
    return Factor(node, 0, repeat)


def _repeated(opened: ir.Value) -> tuple[ir.Value, int] | None:
    """Heads [b, h, 1, t, d] repeated and merged to [b, h * n, t, d]; that value, and h * n."""
    expand = _only_reader(opened, "Expand")
    merge = _only_reader(expand.outputs[0], "Reshape") if expand is not None else None
    if expand is None or merge is None:
        return None
    wide, after = expand.outputs[0], merge.outputs[0]
    heads, each, count = _size(wide, 1), _size(wide, 2), _size(after, 1)
    whole = heads is not None and each is not None and heads * each == count
    kept = _rank(wide) == 5 and _rank(after) == 4 and _size(after, 3) == _size(wide, 4)
    return (after, count) if whole and kept and count is not None else None


def _only_reader(value: ir.Value, kind: str) -> ir.Node | None:
    """The one node that reads a value beside those that ask its shape, where it is of this kind."""
    nodes = _readers(value)
    alone = len(nodes) == 1 and nodes[0].op_type == kind
    return nodes[0] if alone and nodes[0].domain in ("", "ai.onnx") else None


def _readers(value: ir.Value) -> Sequence[ir.Node]:
    return [use.node for use in value.uses() if use.node.op_type != "Shape"]


def _words(value: ir.Value) -> str:
    return ", ".join(sorted({node.op_type for node in _readers(value)})) or "nothing"


def _axis(concat: ir.Node) -> int:
    return attribute_int(concat, "axis", 0) % 4


def _rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 0


def _size(value: ir.Value, axis: int) -> int | None:
    size = value.shape[axis] if value.shape is not None and axis < len(value.shape) else None
    return size if isinstance(size, int) else None
