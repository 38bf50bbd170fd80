"""How the channels of an activation can be scaled without another node: where the scale goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from .facts import input_of, is_constant, made_by, only_use, perm_of, scalar
from .linear import columns, ending, has_bias

#: `norm`: into the gamma and beta of the norm that makes it; `twin`: into those of a second norm
#: beside it, since others read the first; `gain`: into a constant that it is multiplied by;
#: `weight`: into the columns of an earlier weight MatMul; `node`: a Mul (and an Add) of its own.
Kind = Literal["norm", "twin", "gain", "weight", "node"]
NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
#: More steps than any attention has between the values' MatMul and the output's.
STEPS = 16


@dataclass(frozen=True)
class Fold:
    """Where 1/s of an activation x goes, exactly.

    `node` names the norm, the Mul or the weight MatMul. `repeat` heads of `width` channels share
    each of that MatMul's heads (grouped-query attention), so that they must share their scales.
    `beta` is whether the norm can have one: an RMSNormalization cannot.
    """

    kind: Kind
    node: str = ""
    repeat: int = 1
    width: int = 0
    beta: bool = False

    @property
    def shifts(self) -> Literal["channel", "scalar", "none"]:
        """Whether x - c can be had beside x / s: a c a channel, one for all, or none."""
        if self.beta:
            return "channel"
        return "scalar" if self.kind == "node" else "none"


def fold_of(value: ir.Value, layers: Sequence[ir.Node]) -> Fold:
    """Where the scale of a value that `layers` read can go."""
    # a Gemm may add what it multiplies: that is no layer's reading of it
    alone = not value.is_graph_output() and all(
        use.node in layers and use.idx == 0 for use in value.uses()
    )
    source = _reshaped(value) if alone else value
    norm = made_by(source, *NORMS)
    if norm is not None and norm.outputs[0] is source and _constant(norm):
        beta = norm.op_type == "LayerNormalization"
        return Fold("norm" if alone else "twin", norm.name or "", beta=beta)
    if not alone:
        return Fold("node")
    return _gain(source) or _earlier(source) or Fold("node")


def _constant(norm: ir.Node) -> bool:
    """Whether a norm's gamma, and its beta where it has one, are constants."""
    beta = input_of(norm, 2)
    return is_constant(input_of(norm, 1)) and (beta is None or is_constant(beta))


def _reshaped(value: ir.Value) -> ir.Value:
    """What a value was before Reshapes that keep its last dimension and that alone read it."""
    for _ in range(STEPS):
        node = made_by(value, "Reshape")
        source = node.inputs[0] if node is not None else None
        if source is None or _last(source) != _last(value) or not _own(source):
            return value
        value = source
    return value


def _gain(value: ir.Value) -> Fold | None:
    """Mul by a constant of as many channels: the gain of a norm that was written out."""
    node = made_by(value, "Mul")
    gains = [item for item in node.inputs if is_constant(item)] if node is not None else []
    if node is None or len(gains) != 1 or gains[0] is None or gains[0].shape is None:
        return None
    shape = gains[0].shape
    wide = len(shape) > 0 and shape[-1] == _last(value) and all(dim == 1 for dim in shape[:-1])
    return Fold("gain", node.name or "") if wide else None


def _earlier(value: ir.Value) -> Fold | None:
    """The weight MatMul whose columns are this value's channels, through what keeps scales."""
    width = _last(value)
    relu, product = made_by(value, "Relu"), made_by(value, "Mul")
    if relu is not None:
        return _linear(relu.inputs[0], width)
    if product is not None:
        found = (_linear(factor, width) for factor in reversed(product.inputs))
        return next((fold for fold in found if fold is not None), None)
    return _values(value)


def _linear(value: ir.Value | None, width: int | None) -> Fold | None:
    """`x @ w [+ b]`, read by nobody else, whose columns are `width` channels."""
    if value is None or not only_use(value):
        return None
    added = made_by(value, "Add")
    terms = [item for item in added.inputs if not is_constant(item)] if added else [value]
    node = made_by(terms[0], "MatMul", "Gemm") if len(terms) == 1 else None
    if node is None or not node.name or ending(node).outputs[0] is not value:
        return None
    weight, bias = input_of(node, 1), input_of(node, 2)
    if weight is None or not is_constant(weight) or len(weight.uses()) != 1:
        return None
    whole = bias is None or has_bias(node)
    return Fold("weight", node.name) if whole and columns(node) == width else None


def _last(value: ir.Value | None) -> int | None:
    shape = value.shape if value is not None else None
    size = shape[-1] if shape is not None and len(shape) else None
    return size if isinstance(size, int) else None


def _values(value: ir.Value) -> Fold | None:
    """Back from softmax(q k) v, heads side by side, to the MatMul that makes v.

    [b, s, h*d] <- [b, s, h, d] <- [b, h, s, d] = p @ v, and v the same way up,
    all of it read by nobody else: a cache that is an output of the graph is left as it is.
    """
    merged = made_by(value, "Reshape")
    heads = merged.inputs[0] if merged is not None else None
    width = _last(heads)
    turned = made_by(heads, "Transpose")
    if merged is None or turned is None or perm_of(turned) != (0, 2, 1, 3) or width is None:
        return None
    product = _through_where(turned.inputs[0])
    mixed = made_by(product, "MatMul")
    if mixed is None or not _own(merged.inputs[0], turned.inputs[0], product):
        return None
    return _projection(mixed.inputs[1], width, _last(value))


def _through_where(value: ir.Value | None) -> ir.Value | None:
    """The x of Where(c, 0, x) or Where(c, x, 0): rows that are zero stay zero under any scale."""
    node = made_by(value, "Where")
    if node is None:
        return value
    kept = [item for item in node.inputs[1:] if scalar(item) != 0.0]
    return kept[0] if len(kept) == 1 else value


def _projection(value: ir.Value | None, width: int, merged: int | None) -> Fold | None:
    repeat = 1
    for _ in range(STEPS):
        if value is None or not _own(value):
            return None
        node = made_by(value, "Transpose", "Reshape", "Expand", "Unsqueeze")
        if node is None:
            return None
        if node.op_type == "Transpose" and perm_of(node) == (0, 2, 1, 3):
            split = made_by(node.inputs[0], "Reshape")
            if split is None or not _own(node.inputs[0]) or _last(node.inputs[0]) != width:
                return None
            return _shared(split.inputs[0], repeat, width, merged)
        if node.op_type == "Transpose" or _last(node.outputs[0]) != width:
            return None
        repeat *= _repeated(node)
        value = node.inputs[0]
    return None


def _shared(value: ir.Value | None, repeat: int, width: int, merged: int | None) -> Fold | None:
    """The MatMul that makes heads of `width` channels, each `repeat` times in `merged` of them."""
    channels = _last(value)
    if channels is None or merged is None:
        return None
    if channels == width:  # one head for all: MatMul broadcasts it without an Expand
        repeat = merged // width
    fold = _linear(value, channels)
    whole = fold is not None and repeat * channels == merged
    return Fold("weight", fold.node, repeat, width) if fold is not None and whole else None


def _repeated(node: ir.Node) -> int:
    """How often an Expand repeats each head: [b, kv, 1, s, d] -> [b, kv, g, s, d]."""
    before, shape = node.inputs[0].shape if node.inputs[0] else None, node.outputs[0].shape
    if node.op_type != "Expand" or before is None or shape is None or len(shape) != 5:
        return 1
    if len(before) != 5 or before[2] != 1:
        return 1
    size = shape[2]
    return size if isinstance(size, int) else 1


def _own(*values: ir.Value | None) -> bool:
    """Whether one node alone reads each value, and none is an output of the graph."""
    return all(value is not None and only_use(value) for value in values)
