"""Lower attention to the standard `Attention` of opset 23, which ONNX Runtime runs as one kernel.

Rows that a mask of -inf hides whole give 0 in that kernel (`hidden_rows_are_zero` tries it), as
they do where the graph replaces the NaN of their softmax, or such rows of the output, by 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

from .backend import CLOSE, Promise
from .graph import constant, insert, integer, ints, known, made_by, only_use, replace, static
from .ort_mask import Masks
from .ort_match import Match, match

OPSET = 23
OLDEST = 18
#: Standard operators whose meaning changed between opset 18 and 23.
CHANGED = frozenset({"GroupNormalization", "GridSample", "DFT"})
SPLIT = [0, 2, 1, 3]


@dataclass(frozen=True)
class FuseAttention(ir.passes.InPlacePass):
    """`softmax(s * q @ k^T + m) @ v` becomes `Attention`; the graph then imports opset 23.

    `hide` says that the kernel gives 0 for rows whose mask is -inf throughout.
    """

    contract: ClassVar[Promise] = CLOSE

    hide: bool = True

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse every attention of the main graph, unless an operator's meaning would change."""
        opset = model.opset_imports.get("", 0)
        kinds = {node.op_type for node in model.graph.all_nodes() if not node.domain}
        if opset < OLDEST or (opset < OPSET and kinds & CHANGED) or model.functions:
            return ir.passes.PassResult(model, modified=False)
        softmaxes = [node for node in model.graph if node.op_type == "Softmax" and not node.domain]
        masks, count = Masks(model.graph), 0
        for softmax in softmaxes:  # one after the other: a value may be what the last one made
            found = match(softmax, hide=self.hide)
            if found is not None:
                _fuse(found, masks)
                count += 1
        if count:
            model.opset_imports[""] = max(opset, OPSET)
            RemoveUnusedNodesPass()(model)
            TopologicalSortPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)


def hidden_rows_are_zero() -> bool:
    """Try whether this ONNX Runtime gives 0 for a row whose mask is -inf throughout."""
    from onnx import parser

    from .ort_session import onnxruntime

    text = """<ir_version: 10, opset_import: ["" : 23]>
      g (float[1,2,4] x, float[1,1,2,2] m) => (float[1,2,4] y) {
        y = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x, m)
      }"""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    x, mask = np.ones((1, 2, 4), np.float32), np.array([[[[0, 0], [-np.inf] * 2]]], np.float32)
    try:
        blob = parser.parse_model(text).SerializeToString()
        session = ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": x, "m": mask})
    except Exception:  # no such kernel: what it would give cannot be relied on
        return False
    return bool((y[0, 0] == 1).all() and (y[0, 1] == 0).all())


def _fuse(match: Match, masks: Masks) -> None:
    """Put Attention in place: on [B, S, H * D] where the heads are split and merged around it."""
    q, k, v = _unsplit(match.q), _unsplit_key(match), _unsplit(match.v)
    merged, numbers = _merged(match), _heads(match)
    if q is None or k is None or v is None or merged is None or not numbers:
        key = _split_key(match)
        inputs = [match.q, key, match.v, masks.of(match, match.q, 2)]
        _attention(match, inputs, match.output, {})
        return
    _attention(match, [q, k, v, masks.of(match, q, 1)], merged, numbers)


def _heads(match: Match) -> dict[str, int]:
    """How many heads the query has, and key and value; nothing where that is not known."""
    heads, keys = static(match.q, 1), static(match.k, 2 if match.k_split else 1)
    if heads is None or keys is None or static(match.v, 1) != keys:
        return {}
    return {"q_num_heads": heads, "kv_num_heads": keys}


def _split_key(match: Match) -> ir.Value:
    if not match.k_split:
        return match.k
    name = f"{match.output.name}.key"
    return insert(match.last, "Transpose", [match.k], name=name, attributes={"perm": SPLIT})


def _attention(
    match: Match, inputs: list[ir.Value | None], output: ir.Value, numbers: dict[str, int]
) -> None:
    given = inputs if inputs[-1] is not None else inputs[:-1]
    name, attributes = f"{match.output.name}.attention", {"scale": match.scale, **numbers}
    new = insert(match.last, "Attention", given, name=name, like=output, attributes=attributes)
    replace(output, new)


def _unsplit(value: ir.Value) -> ir.Value | None:
    """What [B, S, H * D] the heads [B, H, S, D] were split from."""
    turn = made_by(value, "Transpose")
    split = turn is not None and ints(turn, "perm", []) == SPLIT
    return _flat(turn.inputs[0]) if turn is not None and split else None


def _unsplit_key(match: Match) -> ir.Value | None:
    return _flat(match.k) if match.k_split else _unsplit(match.k)


def _flat(value: ir.Value | None) -> ir.Value | None:
    """What [B, S, H * D] was reshaped to [B, S, H, D]; B and S must be seen to stay."""
    reshape = made_by(value, "Reshape")
    source = reshape.inputs[0] if reshape else None
    if reshape is None or value is None or source is None:
        return None
    before, after, target = source.shape, value.shape, constant(reshape.inputs[1])
    if before is None or after is None or (len(before), len(after)) != (3, 4):
        return None
    zeros = target is not None and list(target[:2]) == [0, 0]
    copied = zeros and not integer(reshape, "allowzero", 0)
    same = known(before[:2]) and before[:2] == after[:2]
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
    return merged if known(kept) and list(merged.shape) == kept else None
