"""A weighted node's parts, replaced: its input, its weight, its bias."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .facts import attribute_int, input_of, is_constant, only_use
from .weight_rules import changed

Array = NDArray[Any]


def initializer(graph: ir.Graph, tensor: ir.TensorProtocol, name: str) -> ir.Value:
    """Register a tensor under a name that no other value of the graph has."""
    taken, unique, count = graph.initializers, name, 0
    while unique in taken:
        count += 1
        unique = f"{name}.{count}"
    value = ir.Value(
        name=unique,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def array_of(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    """Register an array."""
    return initializer(graph, ir.tensor(np.ascontiguousarray(array), name=name), name)


def like(value: ir.Value, array: Array) -> Array:
    """An array in the dtype of a value."""
    return array.astype((value.dtype or ir.DataType.FLOAT).numpy())


def change_weight(node: ir.Node, change: Callable[[Array], Array], suffix: str) -> None:
    """Give a weighted node `change(w)`, w [k, n]; computed when it is read."""
    graph, weight = node.graph, node.inputs[1]
    assert isinstance(graph, ir.Graph)
    assert weight is not None
    tensor = ir.convenience.get_const_tensor(weight)
    assert tensor is not None
    turned = _turned(node)

    def changed_array(array: Array) -> Array:
        wide = change((array.T if turned else array).astype(np.float32))
        return (wide.T if turned else wide).astype(array.dtype)

    name = f"{weight.name}.{suffix}"
    shape = tuple(int(size) for size in tensor.shape.numpy())
    new = initializer(graph, changed(tensor, changed_array, shape, name), name)
    node.replace_input_with(1, new)


def change_bias(node: ir.Node, change: Callable[[Array], Array], columns: int, suffix: str) -> None:
    """Give a weighted node the bias `change(b)`, b [n] (zeros where it has none).

    A node that holds none gets it: a Gemm as its C where that is free, else in an Add after it.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    holder, index = _bias(node)
    old = holder.inputs[index] if holder is not None else None
    out = node.outputs[0]
    array = _array(old) if old is not None else like(out, np.zeros(columns))
    made = like(out, change(np.broadcast_to(array.reshape(-1), (columns,)).astype(np.float32)))
    name = f"{old.name}.{suffix}" if old is not None else f"{node.name}.bias"
    new = array_of(graph, made, name)
    if holder is not None:
        holder.replace_input_with(index, new)
    elif node.op_type == "Gemm" and input_of(node, 2) is None:
        node.resize_inputs(3)
        node.replace_input_with(2, new)
    else:
        _add(graph, node, new)


def has_bias(node: ir.Node) -> bool:
    """Whether a constant bias, a number a column, is in a weighted node or in an Add after it."""
    return _bias(node)[0] is not None


def ending(node: ir.Node) -> ir.Node:
    """The node that gives a layer's output: itself, or the Add of its constant bias."""
    holder, _ = _bias(node)
    return node if holder is None else holder


def drop_unused(model: ir.Model) -> None:
    """Drop the weights and nodes that a replacement left without readers."""
    RemoveUnusedNodesPass()(model)


def columns(node: ir.Node) -> int | None:
    """How many outputs a weighted node has, by its weight."""
    weight = node.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) != 2:
        return None
    size = weight.shape[0 if _turned(node) else 1]
    return size if isinstance(size, int) else None


def _turned(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and attribute_int(node, "transB", 0) == 1


def _bias(node: ir.Node) -> tuple[ir.Node | None, int]:
    """The node that holds a layer's bias and the input it is at: a Gemm, or the Add after it."""
    if input_of(node, 2) is not None:
        return (node, 2) if _is_row(node, node.inputs[2]) else (None, 0)
    out = node.outputs[0]
    reader = out.consumers()[0] if only_use(out) else None
    if reader is None or reader.domain or reader.op_type != "Add":
        return None, 0
    index = 1 if reader.inputs[0] is out else 0
    return (reader, index) if _is_row(node, reader.inputs[index]) else (None, 0)


def _is_row(node: ir.Node, value: ir.Value | None) -> bool:
    """Whether a value is a constant number a column, or one for all: [n], [1, n], [1], []."""
    if value is None or value.shape is None or not is_constant(value):
        return False
    out, (*others, last) = node.outputs[0].shape, (1, *value.shape)
    rank = 1 if out is None else max(1, len(out))
    return len(value.shape) <= rank and last in (1, columns(node)) and all(n == 1 for n in others)


def _array(value: ir.Value) -> Array:
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy()


def _add(graph: ir.Graph, node: ir.Node, bias: ir.Value) -> None:
    out = node.outputs[0]
    inner = ir.Value(name=f"{out.name}.unbiased", shape=out.shape, type=out.type)
    add = ir.node("Add", [inner, bias], outputs=[ir.Value()], name=_unlike(graph, node))
    made = add.outputs[0]
    made.shape, made.type = out.shape, out.type
    graph.insert_after(node, add)
    move(graph, out, made)
    add.replace_input_with(0, out)
    out.name, made.name = inner.name, out.name


def _unlike(graph: ir.Graph, node: ir.Node) -> str:
    """The name of a bias's Add; a Gemm that adds what is computed has one for each change."""
    taken, name, count = {each.name for each in graph}, f"{node.name}.bias", 0
    while name in taken:
        count += 1
        name = f"{node.name}.bias.{count}"
    return name


def move(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let all who read `old`, the graph's outputs too, read `new`."""
    for use in list(old.uses()):
        use.node.replace_input_with(use.idx, new)
    for index, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[index] = new
