"""Attention as its parts spell it in a graph: found from each Softmax, up and down."""

from dataclasses import dataclass
from math import inf

import onnx_ir as ir

from .graph import integer, ints, known, made_by, only_use, scalar, spread, static
from .ort_groups import group, transposed_group


@dataclass(frozen=True)
class Match:
    """`softmax(scale * q @ transpose(k) + sum(added)) @ v`, and 0 where `hidden` holds.

    The key is [B, H, T, D], or [B, T, H, D] before its heads are split (`k_split`); with its
    value it may have fewer heads than the query, each shared by a group of them. `hidden`
    [..., 1] says which rows see no key; `guarded`, that a NaN of such rows becomes 0. `last`
    makes `output`.
    """

    q: ir.Value
    k: ir.Value
    v: ir.Value
    added: tuple[ir.Value, ...]
    scale: float
    output: ir.Value
    last: ir.Node
    k_split: bool
    hidden: ir.Value | None = None
    guarded: bool = False


def match(softmax: ir.Node, *, hide: bool) -> Match | None:
    """The attention around a Softmax; `hide` lets a mask do what `Where(hidden, 0, y)` does."""
    if integer(softmax, "axis", -1) not in (-1, 3):
        return None
    weights = _guarded(softmax.outputs[0])
    last = only_use(weights)
    if last is None or last.op_type != "MatMul" or last.inputs[0] is not weights:
        return None
    v = last.inputs[1]
    scores, added = _scores_and_added(softmax.inputs[0])
    scores, scale = _scaled(scores)
    product = made_by(scores, "MatMul")
    if product is None or v is None:
        return None
    q, q_scale = _scaled(product.inputs[0])
    turned, k_scale = _scaled(product.inputs[1])
    grouped = transposed_group(turned, v)
    k, k_split = (grouped[0], False) if grouped else _untransposed(turned)
    if q is None or k is None or q.shape is None or len(q.shape) != 4 or not _fit(added):
        return None
    k, v = grouped or group(k, v)
    scale *= q_scale * k_scale
    if not 0 < scale < inf or not _alike(q, k, v, key_heads=2 if k_split else 1):
        return None
    hidden, last = _hidden(last) if hide and added else (None, last)
    guarded = weights is not softmax.outputs[0]
    return Match(q, k, v, added, scale, last.outputs[0], last, k_split, hidden, guarded)


def _alike(q: ir.Value, k: ir.Value, v: ir.Value, *, key_heads: int) -> bool:
    """Whether the kernel takes batches and heads: it spreads heads of both key and value alone."""
    if v.shape is not None and len(v.shape) != 4:
        return False
    sizes = [each.shape[0] for each in (q, k, v) if each.shape is not None]
    batches = {size for size in sizes if known([size])}
    heads, shared = static(q, 1), {static(k, key_heads), static(v, 1)} - {None}
    whole = all(heads is None or size is None or heads % size == 0 for size in shared)
    return (len(batches) == 1 or 1 not in batches) and len(shared) < 2 and whole


def _hidden(product: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """Which rows `Where(hidden, 0, y)` clears after the product, and the node that ends it."""
    where = only_use(product.outputs[0])
    if where is None or where.op_type != "Where" or where.inputs[2] is not product.outputs[0]:
        return None, product
    hidden = where.inputs[0]
    cleared = scalar(where.inputs[1]) == 0 and static(hidden, -1) == 1
    return (hidden, where) if cleared else (None, product)


def _fit(added: tuple[ir.Value, ...]) -> bool:
    """Whether the kernel takes what is added as a mask: rank 2 to 4, a column a key."""
    shapes = [value.shape for value in added if value.shape is not None]
    ranks = [len(shape) for shape in shapes]
    if not added:
        return True
    known = len(shapes) == len(added) and 2 <= max(ranks) <= 4 and min(ranks) >= 1
    return known and any(shape[-1] != 1 for shape in shapes)


def _guarded(weights: ir.Value) -> ir.Value:
    """The softmax after `Where(IsNaN(w), 0, w)`, or itself where there is no such guard."""
    users = [use.node for use in weights.uses()]
    if weights.is_graph_output() or sorted(user.op_type for user in users) != ["IsNaN", "Where"]:
        return weights
    where = next(user for user in users if user.op_type == "Where")
    guard = made_by(where.inputs[0], "IsNaN")
    whole = guard in users and scalar(where.inputs[1]) == 0 and where.inputs[2] is weights
    return where.outputs[0] if whole else weights


def _scores_and_added(scores: ir.Value | None) -> tuple[ir.Value | None, tuple[ir.Value, ...]]:
    """Q @ k, scaled or not, and all that is added to it: masks, biases by position."""
    others: list[ir.Value] = []
    while (add := made_by(scores, "Add")) is not None:
        left, right = add.inputs[0], add.inputs[1]
        if not _sums(left):
            left, right = right, left
        if right is None or not _sums(left):
            break
        others.append(right)
        scores = left
    return scores, tuple(reversed(others))


def _sums(value: ir.Value | None, depth: int = 3) -> bool:
    """Whether a value is q @ k, scaled or not, or that with up to `depth` things added."""
    if made_by(_scaled(value)[0], "MatMul") is not None:
        return True
    add = made_by(value, "Add") if depth else None
    return add is not None and any(_sums(each, depth - 1) for each in add.inputs)


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """What a multiplication by one number multiplies, and the number."""
    node = made_by(value, "Mul", "Div")
    if node is None:
        return value, 1.0
    number = spread(node.inputs[1], node.inputs[0])
    if node.op_type == "Div":
        return (node.inputs[0], 1.0 / number) if number else (value, 1.0)
    if number is not None:
        return node.inputs[0], number
    number = spread(node.inputs[0], node.inputs[1])
    return (node.inputs[1], number) if number is not None else (value, 1.0)


def _untransposed(value: ir.Value | None) -> tuple[ir.Value | None, bool]:
    """The key of its transpose [B, H, D, T]; True where it is [B, T, H, D]."""
    turn = made_by(value, "Transpose")
    if turn is not None:
        order = ints(turn, "perm", [])
        if order == [0, 1, 3, 2]:
            return turn.inputs[0], False
        return (turn.inputs[0], True) if order == [0, 2, 3, 1] else (None, False)
    reshape = made_by(value, "Reshape")  # 4-D -> 3-D, transposed, and back
    turn = made_by(reshape.inputs[0], "Transpose") if reshape else None
    flat = made_by(turn.inputs[0], "Reshape") if turn else None
    source = flat.inputs[0] if flat else None
    if turn is None or source is None or ints(turn, "perm", []) != [0, 2, 1]:
        return None, False
    if source.shape is None or len(source.shape) != 4 or value is None or value.shape is None:
        return None, False
    depths = {static(source, 3), static(value, 2)} - {None}
    return (source, False) if len(depths) < 2 else (None, False)
