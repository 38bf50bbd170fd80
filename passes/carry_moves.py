"""How a labelled axis passes the operators that only move elements about."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from .carried import Carried, Labels, Place, aligned, rank, size_of
from .facts import attribute_int, axes_of, input_of, ints, perm_of
from .regroup import LostError, regroup


def reshape(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Axes that are split or merged."""
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    value, axis = place
    if value not in (source, out):
        raise LostError(f"Reshape {node.name} to a shape that is labelled")
    other = out if value is source else source
    if value.shape is None or other.shape is None:
        raise LostError(f"the shape of {node.name} is not known")
    found = regroup(list(value.shape), list(other.shape), axis, labels, node.name or "")
    yield Carried((other, found[0]), found[1])


def transpose(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Axes in another order."""
    perm, (value, axis) = perm_of(node), place
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    if perm is None:
        raise LostError(f"the order of Transpose {node.name} is not known")
    if value is source:
        yield Carried((out, perm.index(axis)), labels)
    else:
        yield Carried((source, perm[axis]), labels)


def unsqueeze(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Unsqueeze, and Squeeze the other way round."""
    more, less = node.outputs[0], node.inputs[0]
    if node.op_type == "Squeeze":
        more, less = less, more
    assert more is not None
    assert less is not None
    axes = axes_of(node)
    if axes is None:
        raise LostError(f"the axes of {node.op_type} {node.name} are not known")
    new = {axis % rank(more) for axis in axes}
    kept = [axis for axis in range(rank(more)) if axis not in new]
    value, axis = place
    if value is more and axis in new:
        raise LostError(f"{node.op_type} {node.name} drops the axis")
    yield Carried((less, kept.index(axis)) if value is more else (more, kept[axis]), labels)


def expand(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """The axis stays; an axis of one that is repeated has nothing behind it."""
    if ints(input_of(node, 1)) is None:
        raise LostError(f"the shape of Expand {node.name} is computed")
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    if size_of(place[0], place[1]) != 1:
        yield from aligned(iter([source, out]), rank(place[0]) - place[1], labels)


def split(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Along the axis a part each, along another all of it."""
    source = node.inputs[0]
    assert source is not None
    yield from _parts(source, node.outputs, attribute_int(node, "axis", 0), place, labels)


def concat(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """The same the other way round."""
    parts = [value for value in node.inputs if value is not None]
    yield from _parts(node.outputs[0], parts, attribute_int(node, "axis", 0), place, labels)


def _parts(
    whole: ir.Value,
    parts: Sequence[ir.Value],
    along: int,
    place: Place,
    labels: Labels,
) -> Iterator[Carried]:
    value, axis = place
    if axis != along % rank(whole):
        for each in (whole, *parts):
            yield Carried((each, axis), labels)
        return
    sizes = [size for each in parts if isinstance(size := size_of(each, axis), int)]
    if len(sizes) != len(parts):
        raise LostError(f"the parts of {whole.name} have no known size")
    ends = np.cumsum([0, *sizes])
    for each, start, end in zip(parts, ends, ends[1:], strict=False):
        if value is whole:
            yield Carried((each, axis), labels[start:end])
        elif each is value:
            filled = np.full(int(ends[-1]), -1, np.int64)
            filled[start:end] = labels
            yield Carried((whole, axis), filled)


def gather(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Axes of the data that are not picked from."""
    data, picked, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert data is not None
    assert picked is not None
    along, more = attribute_int(node, "axis", 0) % rank(data), rank(picked) - 1
    value, axis = place
    if value is picked or (value is data and axis == along):
        raise LostError(f"Gather {node.name} picks from the axis")
    if value is out and along <= axis <= along + more:
        raise LostError(f"Gather {node.name} picks from the axis")
    behind = axis if value is data or axis < along else axis - more
    yield Carried((data, behind), labels)
    yield Carried((out, behind if behind < along else behind + more), labels)


def cut(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Slice and Pad along other axes."""
    axes = ints(input_of(node, 3))
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    if axes is None or place[1] in {axis % rank(source) for axis in axes}:
        raise LostError(f"{node.op_type} {node.name} cuts the axis")
    for each in (source, out):
        yield Carried((each, place[1]), labels)


def shape(node: ir.Node, place: Place, labels: Labels) -> Iterator[Carried]:
    """Sizes of other axes."""
    del labels
    size = rank(place[0])
    start, end = attribute_int(node, "start", 0), attribute_int(node, "end", size)
    if place[1] in range(size)[start:end]:
        raise LostError(f"Shape {node.name} asks for the axis")
    yield from ()
