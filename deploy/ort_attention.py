"""Lower attention to the standard `Attention` of opset 23, which ONNX Runtime runs as one kernel.

Rows that a mask of -inf hides whole give 0 in that kernel, as they do where the graph replaces
the NaN of their softmax by 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

from .graph import (
    array,
    constant,
    insert,
    integer,
    ints,
    made_by,
    only_use,
    replace,
    scalar,
    static,
)

OPSET = 23
OLDEST = 18
#: Standard operators whose meaning changed between opset 18 and 23.
CHANGED = frozenset({"GroupNormalization", "GridSample", "DFT"})
SPLIT = [0, 2, 1, 3]


@dataclass(frozen=True)
class Match:
    """`softmax(scale * q @ transpose(k) + mask) @ v`; k is [B, H, T, D], or [B, T, H, D]."""

    q: ir.Value
    k: ir.Value
    v: ir.Value
    mask: ir.Value | None
    scale: float
    output: ir.Value
    last: ir.Node
    k_split: bool


@dataclass
class Masks:
    """Masks that were widened, by mask and query, so that all layers share one."""

    made: dict[tuple[int, str], ir.Value] = field(default_factory=dict[tuple[int, str], ir.Value])


class FuseAttention(ir.passes.InPlacePass):
    """`softmax(s * q @ k^T + m) @ v` becomes `Attention`; the graph then imports opset 23."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse every attention of the main graph, unless an operator's meaning would change."""
        opset = model.opset_imports.get("", 0)
        kinds = {node.op_type for node in model.graph.all_nodes() if not node.domain}
        if opset < OLDEST or (opset < OPSET and kinds & CHANGED) or model.functions:
            return ir.passes.PassResult(model, modified=False)
        masks = Masks()
        softmaxes = [node for node in model.graph if node.op_type == "Softmax" and not node.domain]
        matches = [match for match in map(_match, softmaxes) if match is not None]
        for match in matches:
            _fuse(model.graph, match, masks)
        if matches:
            model.opset_imports[""] = max(opset, OPSET)
            RemoveUnusedNodesPass()(model)
            TopologicalSortPass()(model)
        return ir.passes.PassResult(model, modified=bool(matches))


def _match(softmax: ir.Node) -> Match | None:
    if integer(softmax, "axis", -1) not in (-1, 3):
        return None
    weights = _guarded(softmax.outputs[0])
    last = only_use(weights)
    if last is None or last.op_type != "MatMul" or last.inputs[0] is not weights:
        return None
    scores, mask = softmax.inputs[0], None
    added = made_by(scores, "Add")
    if added is not None:
        scores, mask = _scores_and_mask(added)
    scores, scale = _scaled(scores)
    product = made_by(scores, "MatMul")
    if product is None or last.inputs[1] is None:
        return None
    q, q_scale = _scaled(product.inputs[0])
    turned, k_scale = _scaled(product.inputs[1])
    k, k_split = _untransposed(turned)
    if q is None or k is None or q.shape is None or len(q.shape) != 4 or not _fits(mask):
        return None
    scale *= q_scale * k_scale
    return Match(q, k, last.inputs[1], mask, scale, last.outputs[0], last, k_split)


def _fits(mask: ir.Value | None) -> bool:
    """Whether the kernel takes the mask: rank 2 to 4, a column a key."""
    if mask is None:
        return True
    return mask.shape is not None and 2 <= len(mask.shape) <= 4 and static(mask, -1) != 1


def _guarded(weights: ir.Value) -> ir.Value:
    """The softmax after `Where(IsNaN(w), 0, w)`, or itself where there is no such guard."""
    users = [use.node for use in weights.uses()]
    if weights.is_graph_output() or sorted(user.op_type for user in users) != ["IsNaN", "Where"]:
        return weights
    where = next(user for user in users if user.op_type == "Where")
    guard = made_by(where.inputs[0], "IsNaN")
    whole = guard in users and scalar(where.inputs[1]) == 0 and where.inputs[2] is weights
    return where.outputs[0] if whole else weights


def _scores_and_mask(added: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """The two sides of an Add: q @ k, scaled or not, and what is added to it."""
    left, right = added.inputs[0], added.inputs[1]
    if made_by(_scaled(left)[0], "MatMul") is None:
        left, right = right, left
    return left, right


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """What a multiplication by one number multiplies, and the number."""
    node = made_by(value, "Mul", "Div")
    if node is None:
        return value, 1.0
    number = scalar(node.inputs[1])
    if node.op_type == "Div":
        return (node.inputs[0], 1.0 / number) if number else (value, 1.0)
    if number is not None:
        return node.inputs[0], number
    number = scalar(node.inputs[0])
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


def _fuse(graph: ir.Graph, match: Match, masks: Masks) -> None:
    """Put Attention in place: on [B, S, H * D] where the heads are split and merged around it."""
    q, k, v = _unsplit(match.q), _unsplit_key(match), _unsplit(match.v)
    merged, heads = _merged(match), static(match.q, 1)
    if q is None or k is None or v is None or merged is None or heads is None:
        _fuse_split(match, _mask(graph, match, match.q, 2, masks))
        return
    mask = _mask(graph, match, q, 1, masks)
    attributes = {"q_num_heads": heads, "kv_num_heads": heads}
    _attention(match, [q, k, v, mask], merged, attributes)


def _fuse_split(match: Match, mask: ir.Value | None) -> None:
    k = match.k
    if match.k_split:
        name = f"{match.output.name}.key"
        k = insert(match.last, "Transpose", [k], name=name, attributes={"perm": SPLIT})
    _attention(match, [match.q, k, match.v, mask], match.output, {})


def _attention(
    match: Match, inputs: list[ir.Value | None], output: ir.Value, attributes: dict[str, int]
) -> None:
    while inputs[-1] is None:
        inputs.pop()
    name = f"{match.output.name}.attention"
    new = insert(
        match.last,
        "Attention",
        inputs,
        name=name,
        like=output,
        attributes={"scale": match.scale, **attributes},
    )
    replace(output, new)


def _unsplit(value: ir.Value) -> ir.Value | None:
    """What [B, S, H * D] the heads [B, H, S, D] were split from."""
    turn = made_by(value, "Transpose")
    if turn is None or ints(turn, "perm", []) != SPLIT:
        return None
    return _flat(turn.inputs[0])


def _unsplit_key(match: Match) -> ir.Value | None:
    return _flat(match.k) if match.k_split else _unsplit(match.k)


def _flat(value: ir.Value | None) -> ir.Value | None:
    """What [B, S, H * D] was reshaped to [B, S, H, D]; B and S must be seen to stay."""
    reshape = made_by(value, "Reshape")
    source = reshape.inputs[0] if reshape else None
    if reshape is None or value is None or source is None:
        return None
    if (
        source.shape is None
        or value.shape is None
        or (len(source.shape), len(value.shape)) != (3, 4)
    ):
        return None
    target = constant(reshape.inputs[1])
    copied = (
        target is not None and list(target[:2]) == [0, 0] and not integer(reshape, "allowzero", 0)
    )
    same = _known(source.shape[:2]) and source.shape[:2] == value.shape[:2]
    return source if copied or same else None


def _merged(match: Match) -> ir.Value | None:
    """[B, S, H * D] that the output's heads are merged into, None where they are not."""
    turn = only_use(match.output)
    if turn is None or turn.op_type != "Transpose" or ints(turn, "perm", []) != SPLIT:
        return None
    reshape = only_use(turn.outputs[0])
    if reshape is None or reshape.op_type != "Reshape" or match.q.shape is None:
        return None
    merged = reshape.outputs[0]
    heads, width = static(match.q, 1), static(match.v, 3)
    if merged.shape is None or len(merged.shape) != 3 or heads is None or width is None:
        return None
    kept = [match.q.shape[0], match.q.shape[2], heads * width]
    return merged if _known(kept) and list(merged.shape) == kept else None


def _known(sizes: Sequence[object]) -> bool:
    return not any(isinstance(size, ir.SymbolicDim) and size.value is None for size in sizes)


def _mask(
    graph: ir.Graph, match: Match, query: ir.Value, axis: int, masks: Masks
) -> ir.Value | None:
    """The mask, widened over the queries where it has one row: the kernel does not broadcast it."""
    mask, size = match.mask, query.shape[axis] if query.shape is not None else None
    if mask is None or static(mask, -2) != 1 or size == 1:
        return mask
    key = (id(mask), str(size) if _known([size]) else str(id(query)))
    if key not in masks.made:
        name = f"{match.output.name}.mask"
        rows = insert(
            match.last,
            "Shape",
            [query],
            name=f"{name}.rows",
            attributes={"start": axis, "end": axis + 1},
        )
        one = array(graph, f"{name}.one", np.array([1], np.int64))
        shape = insert(
            match.last, "Concat", [rows, one], name=f"{name}.shape", attributes={"axis": 0}
        )
        masks.made[key] = insert(match.last, "Expand", [mask, shape], name=name)
    return masks.made[key]
