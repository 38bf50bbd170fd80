"""Rules that change weights; the new bytes are made when they are saved, one weight at a time."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .facts import made_by, perm_of
from .noop_rules import first
from .rules import Builder, Outcome, Rule, rule

Change = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def changed(
    tensor: ir.TensorProtocol, change: Change, shape: tuple[int, ...], name: str
) -> ir.LazyTensor:
    """A tensor of the same dtype whose bytes are `change` of the other's, made on demand."""

    def make() -> ir.TensorProtocol:
        array = np.ascontiguousarray(change(tensor.numpy()))
        return ir.tensor(array, dtype=tensor.dtype, name=name)

    return ir.LazyTensor(make, tensor.dtype, ir.Shape(shape), name=name)


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
    return build.weight(changed(tensor, lambda array: array.transpose(perm), shape, name), name)


WEIGHTS: tuple[Rule, ...] = (transposed_weight,)
