"""Rules that change weights; the new bytes are made when they are saved, one weight at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from .facts import content, input_of, is_constant, made_by, only_use, perm_of
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule
from .weights import Array, apply

Change = Callable[[Array], Array]
#: Rows of a matrix that are transposed at a time.
STRIP = 16


def changed(
    tensor: ir.TensorProtocol, change: Change, shape: tuple[int, ...], name: str
) -> ir.LazyTensor:
    """A tensor of the same dtype whose bytes are `change` of the other's, made on demand."""

    def make() -> ir.TensorProtocol:
        array = apply(tensor, lambda old: owned(change(old), old))
        return ir.tensor(array, dtype=tensor.dtype, name=name)

    return ir.LazyTensor(make, tensor.dtype, ir.Shape(shape), name=name)


def owned(array: Array, source: Array) -> Array:
    """The array in C order, sharing no memory with what it was made from."""
    if array.flags.c_contiguous and not np.may_share_memory(array, source):
        return array
    return np.array(array, order="C", copy=True)


def transposed(array: Array, perm: Sequence[int]) -> Array:
    """A transposed copy; matrices go by strips that fit the cache, two to three times as fast."""
    if tuple(perm) != (1, 0):
        return np.ascontiguousarray(array.transpose(perm))
    rows, columns = array.shape
    made = np.empty((columns, rows), array.dtype)
    for start in range(0, rows, STRIP):
        made[:, start : start + STRIP] = array[start : start + STRIP].T
    return made


@rule("Transpose")
def transposed_weight(build: Builder, node: ir.Node) -> Outcome:
    """Transpose(weight, p) = the weight, stored in that order."""
    weight, perm = first(node), perm_of(node)
    tensor = ir.convenience.get_const_tensor(weight)
    if tensor is None or weight.is_graph_input() or perm is None:
        return "its input is no weight"
    others = [use.node for use in weight.uses() if use.node is not node]
    if any(
        made_by(other.outputs[0], "Transpose") is None or perm_of(other) != perm for other in others
    ):
        return "the weight is read in its own order elsewhere: it would be there twice"
    name = weight.name or "weight"
    shape = tuple(int(tensor.shape.numpy()[axis]) for axis in perm)
    return build.weight(changed(tensor, lambda array: transposed(array, perm), shape, name), name)


@rule("Transpose")
def transpose_of_tile(build: Builder, node: ir.Node) -> Outcome:
    """Transpose(Tile(weight, r), p) = Tile(Transpose(weight, p), r[p])."""
    tile, perm = made_by(node.inputs[0], "Tile"), perm_of(node)
    if tile is None or perm is None or not is_constant(tile.inputs[0]):
        return "its input is no repeated weight"
    if not only_use(first(node)):
        return "the repeated weight is read elsewhere"
    repeats = input_of(tile, 1)
    counts = content(repeats)
    if counts is None:
        return "how often it is repeated is not known"
    if [counts[axis] for axis in perm] != list(counts):
        return "it is repeated along the axes that are moved"
    return build.again(tile, build.again(node, first(tile)), repeats)


WEIGHTS: tuple[Rule, ...] = (transposed_weight, transpose_of_tile)
