"""The nodes of a graph by the layer they belong to, and whether two layers are alike."""

import re
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from .stack import Stack

_SCOPES = "pkg.torch.onnx.name_scopes"
_SMALL = 1 << 12  # bytes of a constant that is worth comparing


class UnlikeError(Exception):
    """The layers are not copies of one another: the whole model has to be traced."""


class Layers:
    """The nodes of one stack in a graph, by layer."""

    def __init__(self, graph: ir.Graph, stack: Stack, tensors: Mapping[str, Any]) -> None:
        self.graph = graph
        self.stack = stack
        self.tensors = tensors
        self._scope = re.compile(rf"'(?:[\w.]*\.)?{re.escape(stack.scope)}\.(\d+)(?:\.[\w.]*)?'")
        self.owner: dict[ir.Node, int] = {}
        for node in graph:
            self._adopt(node)
        for node in reversed(graph):
            self._adopt_constant(node)
        self.nodes: list[list[ir.Node]] = [[] for _ in range(stack.traced)]
        for node in graph:
            if node in self.owner:
                self.nodes[self.owner[node]].append(node)
        self.exits = [self._exit(index) for index in range(stack.traced)]

    def _adopt(self, node: ir.Node) -> None:
        """By its scope; a node of a decomposition that lost its scope, by what it reads."""
        scopes = node.metadata_props.get(_SCOPES, "")
        found = self._scope.search(scopes)
        if found is not None:
            self.owner[node] = int(found[1])
        elif not scopes.startswith("['',"):
            producers = [value.producer() for value in node.inputs if value is not None]
            owners = [self.owner[one] for one in producers if one in self.owner]
            if owners:
                self.owner[node] = max(owners)
        kinds = {attribute.type for attribute in node.attributes.values()}
        if node in self.owner and kinds & {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            raise UnlikeError("a layer has a branch")

    def _adopt_constant(self, node: ir.Node) -> None:
        if node.op_type == "Constant" and node not in self.owner:
            readers = {self.owner.get(user) for user, _ in node.outputs[0].uses()}
            if len(readers) == 1 and (only := next(iter(readers))) is not None:
                self.owner[node] = only

    def _exit(self, index: int) -> ir.Value | None:
        """The one value that the next layer, or what follows the last, reads of this one."""
        last = index == self.stack.traced - 1
        found: dict[ir.Value, None] = {}
        for value in (output for node in self.nodes[index] for output in node.outputs):
            readers = {self.owner.get(node) for node, _ in value.uses()} - {index}
            plain = value.is_graph_output() and not (value.name or "").endswith(f".{index}")
            if (last and (readers or plain)) or readers == {index + 1}:
                found[value] = None
            elif None in readers and index:
                raise UnlikeError(f"{value.name} of layer {index} is read from outside")
        if len(found) > 1:
            raise UnlikeError(f"layer {index} hands on {len(found)} values")
        return next(iter(found), None)

    def moved(self, value: ir.Value, source: int, target: int) -> str | ir.Value | None:
        """What stands for an outer value of layer `source` in layer `target`.

        A name for a weight or a layer's own input, None for the hidden state, else the value.
        """
        if value is self.exits[source - 1]:
            return None
        name = value.name or ""
        prefix = f"{self.stack.name}.{source}."
        if name.startswith(prefix) and value.is_initializer():
            return f"{self.stack.name}.{target}.{name.removeprefix(prefix)}"
        if value.is_graph_input() and name.endswith(f".{source}"):
            return f"{name.removesuffix(f'.{source}')}.{target}"
        return value

    def check(self, source: int, target: int) -> None:
        """Raise UnlikeError when `source`, moved to the place of `target`, is not `target`."""
        one, other = self.nodes[source], self.nodes[target]
        if len(one) != len(other):
            raise UnlikeError(f"layers {source} and {target} differ in size")
        twins: dict[ir.Value, ir.Value] = {}
        for a, b in zip(one, other, strict=True):
            same = (a.op_identifier(), len(a.inputs)) == (b.op_identifier(), len(b.inputs))
            if not same or not _equal(a, b):
                raise UnlikeError(f"{a.name} and {b.name} differ")
            for x, y in zip(a.inputs, b.inputs, strict=True):
                if x is not None and y is not None and not self._twin(x, y, twins, source, target):
                    raise UnlikeError(f"{a.name} and {b.name} read different values")
                if (x is None) != (y is None):
                    raise UnlikeError(f"{a.name} and {b.name} read different values")
            twins |= zip(a.outputs, b.outputs, strict=True)
        left, entered = self.exits[source], self.exits[target]
        if (twins[left] if left else None) is not entered:
            raise UnlikeError(f"layers {source} and {target} hand on different values")

    def _twin(
        self, x: ir.Value, y: ir.Value, twins: dict[ir.Value, ir.Value], source: int, target: int
    ) -> bool:
        if x in twins:
            return twins[x] is y
        moved = self.moved(x, source, target)
        if moved is None:
            return y is self.exits[target - 1]
        if isinstance(moved, str):
            return moved == y.name
        return moved is y or self._constants(x, y)

    def _constants(self, x: ir.Value, y: ir.Value) -> bool:
        """Whether both are the same constant, lifted out of the code once a layer."""
        a, b = x.const_value, y.const_value
        if a is None or b is None or not (x.is_initializer() and y.is_initializer()):
            return False
        if {x.name, y.name} & self.tensors.keys() or max(a.nbytes, b.nbytes) > _SMALL:
            return False
        return _same_tensors(a, b)


def _equal(one: ir.Node, other: ir.Node) -> bool:
    if one.attributes.keys() != other.attributes.keys():
        return False
    return all(_same(attr, other.attributes[key]) for key, attr in one.attributes.items())


def _same(one: Any, other: Any) -> bool:
    if one.type != other.type:
        return False
    if one.type == ir.AttributeType.TENSOR:
        return _same_tensors(one.value, other.value)
    return bool(one.value == other.value)


def _same_tensors(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    return (a.dtype, tuple(a.shape)) == (b.dtype, tuple(b.shape)) and a.tobytes() == b.tobytes()
