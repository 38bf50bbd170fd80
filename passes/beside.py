"""A pass that records no rules, proved place by place: what it makes of the same inputs.

The model before the pass is run once, and beside each value that the pass makes otherwise stands
what it puts there, reading the old values. So rounding cannot grow from place to place, and what
is off is off where it is made. A value that differs may have been given another meaning: then
those after it are made of the new one, and it is enough that they agree, a few steps on. Where none
does it is wrong (a simulation between two programs, as in Necula, PLDI 2000, its cut points found
by trying).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .check import subgraphs
from .contract import Contract, Difference, Outputs, compare
from .culprit import Verify
from .infer import infer

Array = NDArray[np.generic]
_ASIDE = "beside."
#: Steps within which a value that was given another meaning has no more effect; a run each.
_TRIES = 8
#: Operators that round: where one lies between, an error in the last place becomes a whole step.
ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "MatMulNBits"})
#: What one activation on the border of two steps may change in a product: it can fall to either.
STEP = 1e-2
#: Models of more bytes are not written out twice: they are held to their outputs alone.
HEAVY = 1 << 31


def rounds(model: ir.Model) -> bool:
    """Whether the model quantises what it computes."""
    return any(node.op_type in ROUNDING for node in model.graph)


def worst_place(
    before: ir.Model, after: ir.Model, verify: Verify, contract: Contract
) -> tuple[Difference, int] | None:
    """The place that strays the furthest, and how many were compared; None where none was."""
    outputs = {value.name for value in before.graph.outputs}
    if rounds(after):
        wide = {name: max(STEP, allowed) for name, allowed in contract.tolerance.items()}
        contract = replace(contract, tolerance=wide)
    loose: dict[str, Difference] = {}
    places: dict[str, frozenset[str]] = {}
    for _ in range(_TRIES):
        model, places = beside(before, after, loose)
        if not places:
            return None
        found = [
            compare(contract, {name: one}, {name: two})
            for name, one, two in _paired(verify(model), places)
        ]
        broken = {each.tensor: each for each in found if each.broken}
        if not broken:
            return max(found, key=lambda each: each.error), len(places)
        # what reads a value that differs has to differ too: that says nothing of it yet
        first = {name for name in broken if places[name].isdisjoint(broken)}
        loose |= {name: broken[name] for name in places if name in first}
        if first & outputs:
            break
    return next(iter(loose.values())), len(places)


def _paired(found: Outputs, places: Collection[str]) -> Iterator[tuple[str, Array, Array]]:
    """Each value by name with what the pass makes of it, feed by feed."""
    for key, array in found.items():
        name, mark, feed = key.partition("#")
        if name in places:
            yield name, array, found[f"{_ASIDE}{name}{mark}{feed}"]


def beside(
    before: ir.Model, after: ir.Model, loose: Collection[str] = ()
) -> tuple[ir.Model, dict[str, frozenset[str]]]:
    """`before` that also gives what `after` makes of its values, and of which others by name.

    A value is told by its name, but the `loose` ones. What only a body or a function makes
    otherwise is left out.
    """
    made, later = before.clone(), after.clone()
    infer(made)
    infer(later)
    known = {v.name: v for v in _values(made.graph) if v.name and v.name not in loose}
    changed = [
        value
        for node in later.graph
        for value in node.outputs
        if value.type
        and value.name in known
        and _differs(node, known[value.name].producer(), loose)
    ]
    behind = {value: _behind(value, known) for value in changed}
    kept = [value for value, nodes in behind.items() if all(map(_is_flat, nodes))]
    wanted = {node for value in kept for node in behind[value]}
    twins = _copied(made.graph, later.graph, wanted, known)
    for domain, version in later.opset_imports.items():
        made.opset_imports[domain] = max(version, made.opset_imports.get(domain, 0))
    places = {value.name or "": _read(behind[value], known) for value in kept}
    given = set(made.graph.outputs)
    made.graph.outputs.extend(known[name] for name in places if known[name] not in given)
    made.graph.outputs.extend(twins[value] for value in kept)
    return made, places


def _read(nodes: Collection[ir.Node], known: Mapping[str, ir.Value]) -> frozenset[str]:
    """The known values that nodes read."""
    read = (value for node in nodes for value in node.inputs if value is not None)
    return frozenset(value.name or "" for value in read if _old(value, known))


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = (value for node in graph for value in node.outputs)
    return [*graph.inputs, *graph.initializers.values(), *made]


def _differs(node: ir.Node, old: ir.Node | None, loose: Collection[str]) -> bool:
    read = {value.name for value in node.inputs if value is not None}
    return old is None or _key(node) != _key(old) or not read.isdisjoint(loose)


def _key(node: ir.Node) -> tuple[object, ...]:
    """What a node computes, of which names; weights count by identity, since a pass keeps them."""
    inputs = tuple(
        (value.name, id(value.const_value)) if value is not None else None for value in node.inputs
    )
    attributes = sorted((name, repr(each)) for name, each in node.attributes.items())
    outputs = tuple(value.name for value in node.outputs)
    return node.op_identifier(), inputs, tuple(attributes), outputs


def _behind(value: ir.Value, known: Mapping[str, ir.Value]) -> set[ir.Node]:
    """The nodes that make a value of those that are known."""
    found: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found.add(node)
        waiting.extend(
            inner.producer()
            for inner in node.inputs
            if inner is not None and not _old(inner, known)
        )
    return found


def _old(value: ir.Value, known: Mapping[str, ir.Value]) -> bool:
    """Whether the model before has this value; a weight under an old name may be another."""
    found = known.get(value.name or "")
    return found is not None and found.const_value is value.const_value


def _is_flat(node: ir.Node) -> bool:
    return not any(True for _ in subgraphs(node))


def _copied(
    graph: ir.Graph,
    later: ir.Graph,
    wanted: set[ir.Node],
    known: Mapping[str, ir.Value],
) -> dict[ir.Value, ir.Value]:
    """Copies of the wanted nodes at the end of `graph`; what each of their values became."""
    twins: dict[ir.Value, ir.Value] = {}

    def twin(value: ir.Value | None) -> ir.Value | None:
        if value is None or _old(value, known):
            return known[value.name or ""] if value is not None else None
        if value not in twins:  # nothing makes it: a new weight
            name = f"{_ASIDE}{value.name}"
            made = ir.Value(name=name, type=value.type, shape=value.shape)
            made.const_value = value.const_value
            graph.register_initializer(made)
            twins[value] = made
        return twins[value]

    for node in (each for each in later if each in wanted):
        inputs = [twin(value) for value in node.inputs]
        attributes, count = tuple(node.attributes.values()), len(node.outputs)
        copy = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=count)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = f"{_ASIDE}{old.name}" if old.name else ""
            new.type, new.shape = old.type, old.shape
            twins[old] = new
        graph.append(copy)
    return twins
