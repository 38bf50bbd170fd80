"""A cut-out of a graph: what computes some values, as a small model of its own."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .check import subgraphs

#: Constants up to this many elements count by their numbers, larger ones by dtype and shape.
_BY_VALUE = 64


@dataclass(frozen=True)
class Region:
    """A model that computes some values, and the values at which it was cut: its inputs."""

    model: ir.Model
    inputs: tuple[ir.Value, ...]
    #: Weights too large to be copied into the model: inputs of it that have their numbers.
    weights: Mapping[str, ir.TensorProtocol]
    #: Nothing was cut: its inputs are inputs of the graph.
    whole: bool

    @property
    def key(self) -> Hashable:
        """Equal for regions that differ in names and in the numbers of large weights only."""
        graph = self.model.graph
        place: dict[ir.Value | None, int] = {None: -1}
        facts: list[Hashable] = []
        for value in (*graph.inputs, *graph.initializers.values()):
            place[value] = len(place)
            facts.append((str(value.dtype), str(value.shape), _numbers(value.const_value)))
        for node in graph:
            for value in node.outputs:
                place[value] = len(place)
            inputs = tuple(place[value] for value in node.inputs)
            facts.append((node.op_type, inputs, len(node.outputs), _attributes(node)))
        return tuple(facts), tuple(place[value] for value in graph.outputs)


def _numbers(tensor: ir.TensorProtocol | None) -> Hashable:
    if tensor is None or tensor.size > _BY_VALUE or tensor.dtype == ir.DataType.STRING:
        return None
    return tensor.tobytes()


def _attributes(node: ir.Node) -> Hashable:
    return tuple(
        (name, _numbers(attribute.as_tensor()))
        if attribute.type == ir.AttributeType.TENSOR
        else (name, repr(attribute.value))
        for name, attribute in sorted(node.attributes.items())
    )


def cut(
    targets: Sequence[ir.Value], depth: int, opset: int, new: Collection[ir.Node] = ()
) -> Region | None:
    """What computes `targets`, up to `depth` nodes back; None if a body or custom node is in it.

    `new` nodes need not be in a graph yet and do not count as depth.
    """
    nodes = _ordered(targets, _within(targets, depth, new))
    if not all(map(_is_plain, nodes)):
        return None
    mapped: dict[ir.Value, ir.Value] = {}
    inputs, heavy = list[ir.Value](), dict[str, ir.TensorProtocol]()
    edges = _edges(targets, nodes)
    for value in edges:
        tensor = None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
        twin = ir.Value(name=f"i{len(mapped)}", type=value.type, shape=value.shape)
        mapped[value] = twin
        if tensor is None:
            inputs.append(value)
            continue
        twin.type, twin.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        if tensor.size <= _BY_VALUE:
            twin.const_value = tensor
        else:
            heavy[twin.name or ""] = tensor
    made = [_copy(node, mapped) for node in nodes]
    ends = [ir.node("Identity", [mapped[value]]) for value in targets]
    for index, end in enumerate(ends):
        end.outputs[0].name, end.outputs[0].type = f"o{index}", targets[index].type
    twins = [mapped[value] for value in edges]
    graph = ir.Graph(
        [*(mapped[value] for value in inputs), *(twin for twin in twins if twin.name in heavy)],
        [end.outputs[0] for end in ends],
        nodes=[*made, *ends],
        initializers=[twin for twin in twins if twin.const_value is not None],
        opset_imports={"": opset},
        name="region",
    )
    whole = all(value.is_graph_input() for value in inputs)
    return Region(ir.Model(graph, ir_version=10), tuple(inputs), heavy, whole)


def _is_plain(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and not any(True for _ in subgraphs(node))


def _within(targets: Sequence[ir.Value], depth: int, new: Collection[ir.Node]) -> set[ir.Node]:
    """The nodes at most `depth` steps behind the targets, and the new ones behind them."""
    found: dict[ir.Node, int] = {}
    waiting = [(value, depth) for value in targets]
    while waiting:
        value, left = waiting.pop()
        node = value.producer()
        if node is None or ir.convenience.get_const_tensor(value) is not None:
            continue
        if node not in new:
            left -= 1
        if left < 0 or found.get(node, -1) >= left:
            continue
        found[node] = left
        waiting.extend((inner, left) for inner in node.inputs if inner is not None)
    return set(found)


def _ordered(targets: Sequence[ir.Value], nodes: set[ir.Node]) -> list[ir.Node]:
    """The nodes so that each comes after those it reads."""
    ordered: dict[ir.Node, None] = {}
    waiting = [(value.producer(), False) for value in reversed(targets)]
    while waiting:
        node, ready = waiting.pop()
        if node is None or node not in nodes or node in ordered:
            continue
        if ready:
            ordered[node] = None
            continue
        waiting.append((node, True))
        waiting.extend(
            (value.producer(), False) for value in reversed(node.inputs) if value is not None
        )
    return list(ordered)


def _edges(targets: Sequence[ir.Value], nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """The values that the nodes read, or that are asked for, and that none of them makes."""
    inside = set(nodes)
    read = [value for node in nodes for value in node.inputs if value is not None]
    return list(dict.fromkeys(v for v in (*read, *targets) if v.producer() not in inside))


def _copy(node: ir.Node, mapped: dict[ir.Value, ir.Value]) -> ir.Node:
    inputs = [mapped[value] if value is not None else None for value in node.inputs]
    attributes = tuple(node.attributes.values())
    made = ir.Node("", node.op_type, inputs, attributes, num_outputs=len(node.outputs))
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name = "" if old.name == "" else f"v{len(mapped)}"
        mapped[old] = new
    return made
