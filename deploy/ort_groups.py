"""Keys and values that a group of queries shares: found behind the copies that spell it."""

import onnx_ir as ir

from .graph import constant, ints, made_by, static

Pair = tuple[ir.Value, ir.Value]


def group(k: ir.Value, v: ir.Value) -> Pair:
    """Keys and values [B, K, T, D] before their heads were repeated to [B, H, T, D], else both."""
    shared = _unrepeated(k), _unrepeated(v)
    if shared[0] is None or shared[1] is None or static(shared[0], 1) != static(shared[1], 1):
        return k, v
    return shared[0], shared[1]


def transposed_group(turned: ir.Value | None, v: ir.Value) -> Pair | None:
    """As `group`, of keys [B, H, D, T] transposed while their copies are still apart (rank 5)."""
    reshape = made_by(turned, "Reshape")
    turn = made_by(reshape.inputs[0], "Transpose") if reshape else None
    if turn is None or turned is None or ints(turn, "perm", []) != [0, 1, 2, 4, 3]:
        return None
    k, value = _copied(turn.inputs[0], static(turned, 1)), _unrepeated(v)
    if k is None or value is None or static(k, 1) != static(value, 1):
        return None
    return k, value


def _unrepeated(value: ir.Value) -> ir.Value | None:
    """What [B, K, T, D] was copied and reshaped to [B, K * n, T, D]."""
    reshape = made_by(value, "Reshape")
    return _copied(reshape.inputs[0], static(value, 1)) if reshape else None


def _copied(value: ir.Value | None, heads: int | None) -> ir.Value | None:
    """What [B, K, T, D] was expanded to [B, K, n, T, D], when K * n is `heads`."""
    expand = made_by(value, "Expand")
    unsqueeze = made_by(expand.inputs[0], "Unsqueeze") if expand else None
    axes = constant(unsqueeze.inputs[1]) if unsqueeze else None
    if unsqueeze is None or axes is None or axes.tolist() != [2]:
        return None
    source = unsqueeze.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 4:
        return None
    kept, copies = static(source, 1), static(value, 2)
    whole = kept is not None and copies is not None and kept * copies == heads
    return source if whole else None
