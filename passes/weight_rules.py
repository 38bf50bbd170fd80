"""Rules that change weights; the new bytes are made when they are saved, one weight at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from .contract import CLOSE
from .facts import content, input_of, is_constant, made_by, only_use, perm_of
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule
from .sizes import Size, sizes, text
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
    if tensor.dtype == ir.DataType.STRING:
        return "it holds strings"
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


@rule("MatMul", contract=CLOSE)
def tiled_weight(build: Builder, node: ir.Node) -> Outcome:
    """Reshape(x, [r h, s, d]) @ Tile(weight, [r, 1, 1]) = Reshape(x @ weight, [r h, s, n])."""
    tile, merged = made_by(node.inputs[1], "Tile"), made_by(node.inputs[0], "Reshape")
    if tile is None or merged is None or not is_constant(tile.inputs[0]):
        return "it is no product of merged heads with a repeated weight"
    counts, weight = content(input_of(tile, 1)), sizes(first(tile))
    heads, rows = sizes(first(merged)), sizes(merged.outputs[0])
    if counts is None or weight is None or heads is None or rows is None or build.opset < 14:
        return "a shape is not known, or Reshape could read 0 as a copy"
    if len(weight) != 3 or len(heads) != 4 or list(counts[1:]) != [Size.of(1)] * 2:
        return "it is not a matrix a head, repeated for the batch"
    width = weight[2].value
    if heads[:2] != (counts[0], weight[0]) or heads[2:] != rows[1:] or width is None:
        return "the heads that were merged are not those of the weight"
    shape = _resized(build, input_of(merged, 1), width)
    if shape is None:
        return "the shape that merges the heads is not put together from its three sizes"
    product = build.op("MatMul", first(merged), first(tile))
    product.type, product.shape = node.outputs[0].type, ir.Shape([*map(text, heads[:3]), width])
    return build.op("Reshape", product, shape, allowzero=1, like=node.outputs[0])


def _resized(build: Builder, shape: ir.Value | None, width: int) -> ir.Value | None:
    """The shape [r h, s, d] of merged heads with another last size: the first is left to tell."""
    joined = made_by(shape, "Concat")
    if joined is None or any(len(content(value) or ()) != 1 for value in joined.inputs):
        return None
    made = build.again(joined, build.ints(-1), joined.inputs[1], build.ints(width))
    made.type, made.shape = joined.outputs[0].type, joined.outputs[0].shape
    return made


WEIGHTS: tuple[Rule, ...] = (transposed_weight, transpose_of_tile, tiled_weight)
