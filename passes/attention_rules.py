"""Rules for operators of opset 23 around attention: rotary embedding, shared keys and values."""

import onnx_ir as ir

from .contract import CLOSE
from .facts import attribute_int, axes_of, input_of, ints, made_by, scalar
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule
from .sizes import Size, sizes

_OPSET = 23


@rule("Add", contract=CLOSE)
def rotary_embedding(build: Builder, node: ir.Node) -> Outcome:
    """RotaryEmbedding(x, c, s) = x * [c c] + [-x2 x1] * [s s], x = [x1 x2] along the last axis."""
    if build.opset < _OPSET:
        return "RotaryEmbedding needs opset 23"
    for one, two in (node.inputs[:2], node.inputs[1::-1]):
        straight, turned = made_by(one, "Mul"), made_by(two, "Mul")
        if straight is None or turned is None:
            continue
        for source, cosine in (straight.inputs[:2], straight.inputs[1::-1]):
            for rotated, sine in (turned.inputs[:2], turned.inputs[1::-1]):
                if source is not None and _is_rotated(rotated, source):
                    return _rotary(build, source, cosine, sine)
    return "it is not x * cos + [-x2 x1] * sin"


def _rotary(
    build: Builder, source: ir.Value, cosine: ir.Value | None, sine: ir.Value | None
) -> Outcome:
    cos, sin = _half(build, cosine), _half(build, sine)
    shape = sizes(source)
    if cos is None or sin is None or shape is None or len(shape) != 4:
        return "the angles are not [a a] [batch, sequence, size], the same for every head"
    known = sizes(first_source(cosine))
    if known is None or known[:2] != (shape[0], shape[2]):
        return "the angles are not those of every sequence of the batch"
    if sizes(first_source(sine)) != known:
        return "cosine and sine differ in shape"
    return build.op("RotaryEmbedding", source, cos, sin)


def first_source(value: ir.Value | None) -> ir.Value:
    """What an Unsqueeze opens."""
    node = made_by(value, "Unsqueeze")
    assert node is not None
    return first(node)


def _is_rotated(value: ir.Value | None, source: ir.Value) -> bool:
    """Whether a value is [-x2 x1] of [x1 x2]."""
    joined = made_by(value, "Concat")
    if joined is None or len(joined.inputs) != 2 or value is None or value.shape is None:
        return False
    negative, head = made_by(joined.inputs[0], "Neg"), joined.inputs[1]
    tail = first(negative) if negative is not None else None
    split = made_by(head, "Split")
    if split is None or tail is None or split.inputs[0] is not source:
        return False
    last = len(value.shape) - 1
    axes = {attribute_int(each, "axis", 0) % (last + 1) for each in (joined, split)}
    halves = ints(split.inputs[1]) if len(split.inputs) > 1 else None
    ordered = list(split.outputs) == [head, tail]
    return axes == {last} and ordered and halves is not None and len(set(halves)) == 1


def _half(build: Builder, value: ir.Value | None) -> ir.Value | None:
    """The c [batch, sequence, size / 2] of Unsqueeze(f([a a]), 1), f a cosine or sine."""
    opened = made_by(value, "Unsqueeze")
    if opened is None or value is None or value.shape is None:
        return None
    if tuple(axis % len(value.shape) for axis in axes_of(opened) or ()) != (1,):
        return None
    chain: list[ir.Node] = []
    inner: ir.Value | None = first(opened)
    while (node := made_by(inner, "Cos", "Sin", "Mul", "Cast")) is not None:
        chain.append(node)
        if node.op_type == "Mul" and scalar(node.inputs[1]) is None:
            return None
        inner = node.inputs[0]
    joined = made_by(inner, "Concat")
    if joined is None or inner is None or inner.shape is None or len(inner.shape) != 3:
        return None
    twice = len(joined.inputs) == 2 and joined.inputs[0] is joined.inputs[1]
    if not twice or attribute_int(joined, "axis", 0) % 3 != 2:
        return None
    half: ir.Value | None = joined.inputs[0]
    for node in reversed(chain):
        made = build.again(node, half, *node.inputs[1:])
        made.type = node.outputs[0].type
        half = made
    return half


@rule("Attention")
def shared_heads(build: Builder, node: ir.Node) -> Outcome:
    """Attention(q, each head of k n times, of v too) = Attention(q, k, v)."""
    query = first(node).shape
    if query is None or len(query) != 4 or len(node.inputs) < 3:
        return "its operands are not split into heads"
    if input_of(node, 4) is not None or input_of(node, 5) is not None:
        return "its past keys and values are of every head"
    if any(made.uses() or made.is_graph_output() for made in node.outputs[1:]):
        return "the keys and values of every head, or its scores, are read"
    key, value = _unrepeated(node.inputs[1]), _unrepeated(node.inputs[2])
    if key is None or value is None:
        return "its keys or values are not repeated"
    if _heads(key) != _heads(value):
        return "keys and values are of different numbers of heads"
    return build.again(node, node.inputs[0], key, value, *node.inputs[3:])


def _heads(value: ir.Value) -> Size | None:
    """The heads of [batch, heads, sequence, size]."""
    shape = sizes(value)
    return shape[1] if shape is not None else None


def _unrepeated(value: ir.Value | None) -> ir.Value | None:
    """X of Reshape(Expand(Unsqueeze(x, 2), n times), heads merged)."""
    merge = made_by(value, "Reshape")
    expand = made_by(first(merge), "Expand") if merge is not None else None
    opened = made_by(first(expand), "Unsqueeze") if expand is not None else None
    if opened is None or expand is None or value is None or axes_of(opened) != (2,):
        return None
    source, wide, after = sizes(first(opened)), sizes(expand.outputs[0]), sizes(value)
    if source is None or wide is None or after is None or len(source) != 4:
        return None
    kept = (*wide[:2], *wide[3:]) == source
    merged = after == (wide[0], wide[1] * wide[2], *wide[3:])
    return first(opened) if kept and merged and wide[2] != Size.of(1) else None


ROTARY: tuple[Rule, ...] = (rotary_embedding,)
SHARED: tuple[Rule, ...] = (shared_heads,)
