"""Values that count: every element is its own index along one axis."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .facts import constant, made_by, scalar
from .sizes import Size, sizes

#: Longest chain of nodes that is followed.
_DEPTH = 32
#: Longest table of positions that is looked into.
_TABLE = 1 << 16


@dataclass(frozen=True)
class Grid:
    """A value whose element at index (..., i, ...) is i, i along `axis`, of this shape."""

    axis: int
    shape: tuple[Size, ...]

    @property
    def length(self) -> Size:
        """How far it counts."""
        return self.shape[self.axis]


def grid(value: ir.Value | None, depth: int = _DEPTH) -> Grid | None:
    """How a value counts, None where it does not or cannot be told."""
    shape = sizes(value) if value is not None else None
    axis = _axis(value, depth) if value is not None and shape else None
    if axis is None or shape is None or not -len(shape) <= axis < 0:
        return None
    return Grid(axis + len(shape), shape)


def _axis(value: ir.Value, depth: int) -> int | None:
    """The axis, counted from the end, which is what broadcasting keeps."""
    node = made_by(value, *_FOLLOWED)
    if node is None or depth == 0:
        return _table(value)
    if node.op_type == "Range":
        return -1 if _from_zero(node) else None
    source = node.inputs[0]
    inner = grid(source, depth - 1) if source is not None else None
    if inner is None or source is None or value.shape is None:
        return None
    if node.op_type in ("Unsqueeze", "Squeeze", "Reshape"):
        return _moved(inner, sizes(value))
    if node.op_type == "Expand" and not _kept(inner, sizes(value)):
        return None
    return inner.axis - len(inner.shape)


_FOLLOWED = ("Range", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Cast", "Identity")


def _from_zero(node: ir.Node) -> bool:
    return scalar(node.inputs[0]) == 0 and scalar(node.inputs[2]) == 1


def _moved(inner: Grid, after: tuple[Size, ...] | None) -> int | None:
    """Where the counted axis goes when only dimensions of size 1 come or go."""
    one = Size.of(1)
    if after is None or inner.length == one:
        return None
    wide = [axis for axis, size in enumerate(after) if size != one]
    before = [axis for axis, size in enumerate(inner.shape) if size != one]
    if [after[axis] for axis in wide] != [inner.shape[axis] for axis in before]:
        return None
    return wide[before.index(inner.axis)] - len(after)


def _kept(inner: Grid, after: tuple[Size, ...] | None) -> bool:
    """Whether expanding left the counted axis as it was: a count of one repeats instead."""
    return after is not None and after[inner.axis - len(inner.shape)] == inner.length


def _table(value: ir.Value) -> int | None:
    """A constant that counts along its last axis: the positions many models keep as a buffer."""
    shape = value.shape
    if shape is None or value.dtype != ir.DataType.INT64 or len(shape) == 0:
        return None
    array = constant(value, _TABLE)
    if array is None or array.size == 0:
        return None
    counts = np.arange(array.shape[-1], dtype=np.int64)
    return -1 if np.array_equal(array, np.broadcast_to(counts, array.shape)) else None
