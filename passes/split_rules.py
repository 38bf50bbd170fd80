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
    for use in source.uses():
        made = use.node
        if made.op_type == "Split" and _sizes(made) == (axis, pair):
            return made.outputs[0 if is_head else 1]
        other = _part(made) if made.op_type == "Slice" and made is not node else None
        if other == (axis, size, cut, not is_head) and made.inputs[0] is source:
            head = build.op("Split", source, build.ints(*pair), outputs=2, axis=axis)
            split = head.producer()
            assert split is not None
            return split.outputs[0 if is_head else 1]
    return "the other part is not cut out"


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
    for use in source.uses():
        if use.node.op_type == "Split" and _sizes(use.node) == (axis, pieces):
            return use.node.outputs[index[0]]
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
