"""One of each: nodes that compute the same, weights of equal bytes."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator

import numpy as np
import onnx_ir as ir

from .ledger import Ledger
from .rules import Builder, Outcome, Rule
from .splice import drop_initializer
from .weights import Array, apply

_RANDOM = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
#: Bytes at the start, in the middle and at the end by which weights are first told apart.
_PROBE = 256


def same_as_earlier() -> Rule:
    """A rule that remembers the nodes of one sweep."""
    seen: dict[Hashable, ir.Node] = {}

    def propose(build: Builder, node: ir.Node) -> Outcome:
        del build
        key = _key(node)
        if key is None:
            return "it is random, or holds a graph"
        earlier = seen.setdefault(key, node)
        # A node seen before may have been rewired since: its key is asked for again.
        if earlier is node or earlier.graph is not node.graph or _key(earlier) != key:
            seen[key] = node
            return "no node before it computes the same"
        return list(earlier.outputs)

    return Rule("same-as-earlier", frozenset({"*"}), "f(x), f(x) = one f(x), read twice.", propose)


def _key(node: ir.Node) -> Hashable | None:
    if node.op_type in _RANDOM:
        return None
    attributes: list[tuple[str, Hashable]] = []
    for name, attribute in sorted(node.attributes.items()):
        value = _attribute(attribute)
        if value is None:
            return None
        attributes.append((name, value))
    inputs = tuple(id(value) if value is not None else 0 for value in node.inputs)
    used = tuple(bool(value.name) for value in node.outputs)
    return node.op_identifier(), id(node.graph), inputs, used, tuple(attributes)


def _attribute(attribute: ir.Attr) -> Hashable | None:
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        small = tensor.size <= _PROBE and tensor.dtype != ir.DataType.STRING
        return (tensor.dtype, str(tensor.shape), tensor.tobytes()) if small else id(tensor)
    if isinstance(value, int | float | str | bytes):
        return (attribute.type, repr(value))
    if isinstance(value, list | tuple) and all(isinstance(x, int | float | str) for x in value):
        return (attribute.type, repr(tuple(value)))
    return None


def merge_equal_weights(graph: ir.Graph, ledger: Ledger) -> Iterator[str]:
    """Let weights of equal dtype, shape and bytes be one; yields the names that went away.

    Only weights whose probes agree are read whole, one pair at a time.
    """
    groups: dict[Hashable, list[ir.Value]] = defaultdict(list)
    for value in graph.initializers.values():
        tensor = value.const_value
        pinned = value.is_graph_input() or value.is_graph_output()
        if tensor is not None and not pinned and not isinstance(tensor, ir.LazyTensor):
            groups[_probe(tensor)].append(value)
    for group in (group for group in groups.values() if len(group) > 1):
        kept: dict[bytes, ir.Value] = {}
        for value in group:
            first = kept.setdefault(_digest(value.const_value), value)
            name = value.name or ""
            if first is not value and ledger.permits("equal-weights", name):
                value.replace_all_uses_with(first)
                drop_initializer(value)
                yield name


def _probe(tensor: ir.TensorProtocol) -> Hashable:
    kind = (tensor.dtype, tuple(tensor.shape.numpy()))
    if tensor.dtype == ir.DataType.STRING or tensor.size == 0:
        return (*kind, id(tensor))
    return (*kind, apply(tensor, _parts))


def _parts(array: Array) -> Hashable:
    flat = array.reshape(-1)
    middle = flat.size // 2
    parts = (flat[:_PROBE], flat[middle : middle + _PROBE], flat[-_PROBE:])
    return tuple(np.ascontiguousarray(part).tobytes() for part in parts)


def _digest(tensor: ir.TensorProtocol | None) -> bytes:
    assert tensor is not None
    return apply(tensor, lambda array: hashlib.sha256(array.tobytes()).digest())
