"""Rules for what is cut along an axis."""

import onnx_ir as ir

from .facts import attribute_int, input_of, ints, made_by
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule


@rule("Slice")
def slices_as_split(build: Builder, node: ir.Node) -> Outcome:
    """Slice(x, 0, k), Slice(x, k, end) = Split(x, k and the rest)."""
    part = _part(node) if build.opset >= 13 else None
    if part is None:
        return "it is no head or tail of one axis of known size"
    axis, size, cut, is_head = part
    if cut in (0, size):
        return "it takes nothing or all"
    source, pair = first(node), (cut, size - cut)
    known = _earlier(node, source, axis, pair, 0 if is_head else 1)
    if known is not None:
        return known
    for use in source.uses():
        made = use.node
        if made.op_type != "Slice" or made is node or made.graph is not node.graph:
            continue
        if _part(made) == (axis, size, cut, not is_head) and made.inputs[0] is source:
            head = build.op("Split", source, build.ints(*pair), outputs=2, axis=axis)
            split = head.producer()
            assert split is not None
            return split.outputs[0 if is_head else 1]
    return "the other part is not cut out"


def _earlier(
    node: ir.Node, source: ir.Value, axis: int, pieces: tuple[int, ...], index: int
) -> ir.Value | None:
    """A piece of a Split that is there already, in the node's graph and before it."""
    for use in source.uses():
        made = use.node
        if made.op_type != "Split" or _sizes(made) != (axis, pieces):
            continue
        if made.outputs[index].name != "" and _precedes(made, node):
            return made.outputs[index]
    return None


def _precedes(one: ir.Node, two: ir.Node) -> bool:
    """Whether two nodes are of one graph, and in this order."""
    if one.graph is None or one.graph is not two.graph:
        return False
    return next(node for node in one.graph if node is one or node is two) is one


def _part(node: ir.Node) -> tuple[int, int, int, bool] | None:
    """(axis, its size, where it is cut, whether the head is taken) of a Slice along one axis."""
    starts, ends, axes = (ints(input_of(node, index)) for index in (1, 2, 3))
    steps = (1,) if input_of(node, 4) is None else ints(input_of(node, 4))
    shape = first(node).shape
    if shape is None or steps != (1,) or not (starts and ends and axes):
        return None
    if not len(starts) == len(ends) == len(axes) == 1:
        return None
    axis = axes[0] % len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    start, end = (min(max(n + size if n < 0 else n, 0), size) for n in (starts[0], ends[0]))
    if start == 0:
        return axis, size, end, True
    return (axis, size, start, False) if end == size else None


def _sizes(node: ir.Node) -> tuple[int, tuple[int, ...]] | None:
    shape, found = first(node).shape, ints(input_of(node, 1))
    if shape is None or found is None or made_by(node.outputs[0], "Split") is None:
        return None
    return attribute_int(node, "axis", 0) % len(shape), found


@rule("SequenceAt")
def part_of_sequence(build: Builder, node: ir.Node) -> Outcome:
    """SequenceAt(SplitToSequence(x, sizes), i) = part i of Split(x, sizes)."""
    made, index = made_by(node.inputs[0], "SplitToSequence"), ints(node.inputs[1])
    if made is None or index is None or build.opset < 13:
        return "it does not read a part, known by number, of a SplitToSequence"
    source, axis = first(made), attribute_int(made, "axis", 0)
    pieces = _pieces(made)
    if pieces is None or source.shape is None:
        return "the sizes of the parts are not known"
    if not -len(pieces) <= index[0] < len(pieces):
        return "there is no such part"
    axis %= len(source.shape)
    known = _earlier(node, source, axis, pieces, index[0])
    if known is not None:
        return known
    head = build.op("Split", source, build.ints(*pieces), outputs=len(pieces), axis=axis)
    split = head.producer()
    assert split is not None
    return split.outputs[index[0]]


def _pieces(node: ir.Node) -> tuple[int, ...] | None:
    """The sizes of the parts that a SplitToSequence makes."""
    shape, split = first(node).shape, input_of(node, 1)
    size = shape[attribute_int(node, "axis", 0)] if shape is not None else None
    asked = ints(split)
    if split is None or asked is None or not isinstance(size, int) or split.shape is None:
        return None
    if len(split.shape) == 1:
        return asked if sum(asked) == size else None
    each = asked[0]
    if each <= 0:
        return None
    rest = (size % each,) if size % each else ()
    return (each,) * (size // each) + rest


SPLITS: tuple[Rule, ...] = (slices_as_split, part_of_sequence)
