"""Repeat the traced layers of a graph for those that were not traced.

A layer's nodes are told by the module scope that torch leaves in each node. A copy of them for
another layer takes that layer's weights, its past, and the hidden state of the layer before it;
all else they read is shared by every layer. Before anything is copied, each kind of layer is
checked: its first traced occurrence, moved to the place of the second, must be the second.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import onnx_ir as ir

from .layers import Layers, UnlikeError
from .stack import Stack


def extend(graph: ir.Graph, stack: Stack, tensors: Mapping[str, Any]) -> None:
    """Add the stack's untraced layers to the graph; `tensors` are the model's, by name.

    Raises:
        UnlikeError: the traced layers show that they cannot be copies.
    """
    layers = Layers(graph, stack, tensors)
    if not layers.owner:
        return  # an encoder's stack in a decoder's graph
    for source, target in _pairs(stack):
        layers.check(source, target)
    last = layers.exits[-1]
    uses = last.uses() if last is not None else ()
    readers = [(node, at) for node, at in uses if layers.owner.get(node) is None]
    hidden, place = last, layers.nodes[-1][-1]
    for target in range(stack.traced, len(stack.kinds)):
        source = _model_of(stack, target)
        hidden, place = _copy(layers, source, target, hidden, place)
    if last is not None and hidden is not None:
        for node, at in readers:
            node.replace_input_with(at, hidden)
        _take_over(graph, last, hidden)


def _pairs(stack: Stack) -> Iterator[tuple[int, int]]:
    """Two traced layers of each kind of pair that is to be repeated."""
    wanted = {stack.kinds[i - 1 : i + 1] for i in range(stack.traced, len(stack.kinds))}
    for pair in wanted:
        places = [i for i in range(1, stack.traced) if stack.kinds[i - 1 : i + 1] == pair]
        yield from pairwise(places)


def _model_of(stack: Stack, target: int) -> int:
    pair = stack.kinds[target - 1 : target + 1]
    return max(i for i in range(1, stack.traced) if stack.kinds[i - 1 : i + 1] == pair)


def _copy(
    layers: Layers,
    source: int,
    target: int,
    hidden: ir.Value | None,
    place: ir.Node,
) -> tuple[ir.Value | None, ir.Node]:
    made: dict[ir.Value, ir.Value] = {}
    for node in layers.nodes[source]:
        inputs = [
            None
            if value is None
            else made.get(value) or _outer(layers, value, source, target, hidden)
            for value in node.inputs
        ]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            overload=node.overload,
            num_outputs=len(node.outputs),
            name=f"{node.name}_layer{target}",
            metadata_props=_rescoped(node, layers.stack.scope, source, target),
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            _name(layers.graph, old, new, source, target)
            made[old] = new
        layers.graph.insert_after(place, copy)
        place = copy
    left = layers.exits[source]
    return (None if left is None else made[left]), place


def _outer(
    layers: Layers,
    value: ir.Value,
    source: int,
    target: int,
    hidden: ir.Value | None,
) -> ir.Value:
    moved = layers.moved(value, source, target)
    if moved is None and hidden is not None:
        return hidden
    if isinstance(moved, ir.Value):
        return moved
    if moved is None:
        raise UnlikeError("a layer reads a hidden state that none hands on")
    graph = layers.graph
    if value.is_graph_input():
        known = next((one for one in graph.inputs if one.name == moved), None)
        if known is None:
            known = ir.Value(name=moved, shape=value.shape, type=value.type)
            graph.inputs.append(known)
        return known
    if moved not in graph.initializers:
        graph.register_initializer(_initial(moved, value, layers.tensors))
    return graph.initializers[moved]


def _initial(name: str, like: ir.Value, tensors: Mapping[str, Any]) -> ir.Value:
    kind: Any = type(like.const_value)
    value = ir.Value(name=name, shape=like.shape, type=like.type)
    value.const_value = kind(tensors[name], name=name)
    return value


def _name(graph: ir.Graph, old: ir.Value, new: ir.Value, source: int, target: int) -> None:
    new.shape, new.type = old.shape, old.type
    name = old.name or ""
    if old.is_graph_output() and name.endswith(f".{source}"):
        new.name = f"{name.removesuffix(f'.{source}')}.{target}"
        graph.outputs.append(new)
    else:
        new.name = f"{name}_layer{target}"


def _rescoped(node: ir.Node, stack: str, source: int, target: int) -> dict[str, str]:
    old, new = f"{stack}.{source}", f"{stack}.{target}"
    return {
        key: re.sub(rf"{re.escape(old)}(?!\d)", new, text)
        for key, text in node.metadata_props.items()
    }


def _take_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Make `new` the output that `old` was, under its name."""
    for index, output in enumerate(graph.outputs):
        if output is old:
            name, old.name = old.name, f"{old.name}_inner"
            graph.outputs[index] = new
            new.name = name


def order(graph: ir.Graph) -> None:
    """Put numbered inputs and outputs in order: `past_key.0`, `past_key.1`, ..., by kind."""
    for values in (graph.inputs, graph.outputs):
        names = [(value.name or "").rpartition(".") for value in values]
        first: dict[str, int] = {}
        for place, (stem, _, number) in enumerate(names):
            if number.isdigit():
                first.setdefault(stem, place)
        keys = [
            (first[stem], int(number), 0) if number.isdigit() and stem in first else (place, 0, 0)
            for place, (stem, _, number) in enumerate(names)
        ]
        ordered = [
            value for _, value in sorted(zip(keys, values, strict=True), key=lambda one: one[0])
        ]
        values.clear()
        values.extend(ordered)
