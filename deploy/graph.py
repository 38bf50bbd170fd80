"""Reading and growing a graph: the few moves that lowering for an engine needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Attribute = int | float | str | list[int]


def made_by(value: ir.Value | None, *ops: str) -> ir.Node | None:
    """The node of one of these standard operators that makes `value`, None when another does."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in ops and node.domain == "" else None


def only_use(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, None when there are others or it leaves the graph."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of a constant, None when it is computed or is an input with a default."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is None or (value is not None and value.is_graph_input()):
        return None
    return tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number a constant of one element holds, None when it is anything else."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def spread(value: ir.Value | None, x: ir.Value | None) -> float | None:
    """The number that `scalar` gives, None where `x` would get axes of it."""
    array, shape = constant(value), x.shape if x is not None else None
    axes = len(shape) if shape is not None else 1
    return scalar(value) if array is not None and array.ndim <= max(axes, 1) else None


def ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """An attribute of integers."""
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else default


def integer(node: ir.Node, name: str, default: int) -> int:
    """An attribute of one integer."""
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else default


def static(value: ir.Value | None, axis: int) -> int | None:
    """The size of an axis where it is a number, None where it is symbolic or unknown."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def known(sizes: Sequence[object]) -> bool:
    """Whether every size is a number or has a name."""
    return not any(isinstance(size, ir.SymbolicDim) and size.value is None for size in sizes)


def register(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new constant of the graph; a name that is taken gets a number."""
    unique, number = name, 0
    while unique in graph.initializers:
        number += 1
        unique = f"{name}.{number}"
    shape = ir.Shape(tensor.shape.numpy())
    kind = ir.TensorType(tensor.dtype)
    value = ir.Value(name=unique, shape=shape, type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value


def array(graph: ir.Graph, name: str, values: NDArray[Any]) -> ir.Value:
    """A new constant of the graph from an array."""
    return register(graph, name, ir.tensor(np.ascontiguousarray(values)))


def insert(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    name: str,
    domain: str = "",
    like: ir.Value | None = None,
    attributes: Mapping[str, Attribute] | None = None,
) -> ir.Value:
    """A new node of one output, called `name`, in front of another; `like` gives its type."""
    node = ir.node(op_type, inputs, attributes or {}, domain=domain, name=name)
    output = node.outputs[0]
    output.name = name
    if like is not None:
        output.type, output.shape = like.type, like.shape
    graph = before.graph
    assert graph is not None
    graph.insert_before(before, node)
    return output


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old` read `new`; a graph output keeps its name."""
    name, leaves = old.name, old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if leaves:
        old.name, new.name = f"{name}.replaced", name
