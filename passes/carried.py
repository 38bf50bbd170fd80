"""Labels of an axis, and where they go: what every handler of an operator speaks in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .regroup import LostError

Labels = NDArray[np.int64]
Place = tuple[ir.Value, int]


@dataclass(frozen=True)
class Carried:
    """Labels that a node hands on to a place."""

    place: Place
    labels: Labels


Handler = Callable[[ir.Node, Place, Labels], Iterator[Carried]]


def rank(value: ir.Value) -> int:
    """The number of a value's axes."""
    if value.shape is None:
        raise LostError(f"the shape of {value.name} is not known")
    return len(value.shape)


def values_of(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs and outputs that are there."""
    yield from (value for value in (*node.inputs, *node.outputs) if value is not None)


def size_of(value: ir.Value, axis: int) -> int | ir.SymbolicDim:
    """The size of an axis whose rank is known."""
    assert value.shape is not None
    return value.shape[axis]


def aligned(values: Iterator[ir.Value], back: int, labels: Labels) -> Iterator[Carried]:
    """The axis that is `back` from the end of each, by numpy's rule of broadcasting."""
    for value in values:
        axis = rank(value) - back
        if axis >= 0 and size_of(value, axis) != 1:
            yield Carried((value, axis), labels)
