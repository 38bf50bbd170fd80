"""Cuts a model into stages for pipeline parallelism: a chain that computes what the whole does."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import onnx_ir as ir

from .. import ConfigError
from .check import check, subgraphs
from .facts import is_constant
from .infer import infer
from .sizes import sizes

#: How far from even a cut may be, as a share of a stage's cost, to pass fewer bytes on.
SLACK = 0.25
#: Sizes that dimensions are taken to have, to weigh what a cut passes on.
_DIM = 64
#: What a stage's `metadata_props` holds its `Stage` under, as JSON.
KEY = "llmdeploy.stage"


@dataclass(frozen=True)
class Stage:
    """One part of a split model.

    `sources` says of each input of it that is not the whole model's from which stage it comes;
    `cost` is its share of the whole.
    """

    index: int
    count: int
    model: ir.Model
    sources: Mapping[str, int]
    cost: float


def split(
    model: ir.Model, count: int, costs: Mapping[str, float] | None = None
) -> tuple[Stage, ...]:
    """Cut `model` into `count` stages of nearly equal cost; it is left as it was.

    `costs` are measured seconds by node name (of a node without one, its output's); else a node
    costs its weight's multiply-adds, or the elements it makes. A cut is made where least is
    passed on, never between a cache that is an output and its use. Run with the same
    optimisations, or none, the chain gives the same bits as the whole.

    Raises:
        ConfigError: there are not so many places to cut.
        PassError: the model is not valid.
    """
    check(model, where="the model to split")
    infer(model)
    nodes = list(model.graph)
    weights = [_cost(node, costs) for node in nodes]
    readers = _Readers(nodes)
    spans = list(pairwise([0, *_cuts(nodes, weights, count, readers), len(nodes)]))
    total = sum(weights) or 1.0
    place = {node: at for at, (start, end) in enumerate(spans) for node in nodes[start:end]}
    return tuple(
        _stage(model, nodes[start:end], place, readers, at, count, sum(weights[start:end]) / total)
        for at, (start, end) in enumerate(spans)
    )


class _Readers:
    """Which nodes of the main graph read a value, themselves or in a body of theirs."""

    def __init__(self, nodes: Sequence[ir.Node]) -> None:
        self.owner = {body: node for node in nodes for body in _bodies(node)}

    def __call__(self, value: ir.Value) -> Iterator[ir.Node]:
        for use in value.uses():
            owner = None if use.node.graph is None else self.owner.get(use.node.graph)
            yield owner or use.node


def _cost(node: ir.Node, costs: Mapping[str, float] | None) -> float:
    if costs is not None:
        return costs.get(node.name or node.outputs[0].name or "", 0.0)
    if node.op_type in ("MatMul", "Gemm", "Conv"):
        weight = next((value for value in node.inputs[1:] if is_constant(value)), None)
        if weight is not None:
            return float(_DIM * _elements(weight))
    return float(sum(_elements(value) for value in node.outputs))


def _elements(value: ir.Value) -> int:
    total = 1
    for size in sizes(value) or ():
        total *= size.value if size.value is not None else _DIM
    return total


def _cuts(
    nodes: Sequence[ir.Node], weights: Sequence[float], count: int, readers: _Readers
) -> list[int]:
    """Before which nodes to cut: near even shares of the cost, where least is passed on."""
    passed = _passed_on(nodes, readers)
    ends = list(accumulate(weights))
    share, cuts = ends[-1] / count if ends else 0.0, list[int]()
    for index in range(1, count):
        low = bisect_left(ends, share * (index - SLACK)) + 1
        high = bisect_left(ends, share * (index + SLACK)) + 1
        middle = share * index
        places = [
            place
            for place in range(max(low, cuts[-1] + 1 if cuts else 1), min(high, len(nodes) - 1) + 1)
            if passed[place] is not None
        ]
        if not places:
            raise ConfigError(
                f"the model cannot be cut into {count} stages of like cost", mend="ask for fewer"
            )
        cuts.append(min(places, key=lambda at: (passed[at], abs(ends[at - 1] - middle))))
    return cuts


def _passed_on(nodes: Sequence[ir.Node], readers: _Readers) -> list[int | None]:
    """For each place to cut the elements that are passed on; None where a cache would be."""
    position = {node: index for index, node in enumerate(nodes)}
    change, barred = [0] * (len(nodes) + 1), [0] * (len(nodes) + 1)
    for index, node in enumerate(nodes):
        for value in node.outputs:
            last = max((position[user] for user in readers(value)), default=index)
            if last > index:
                change[index + 1] += _elements(value)
                change[last + 1] -= _elements(value)
                if value.is_graph_output():
                    barred[index + 1] += 1
                    barred[last + 1] -= 1
    live, blocked = list(accumulate(change)), list(accumulate(barred))
    return [None if blocked[at] else live[at] for at in range(len(nodes) + 1)]


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for body in subgraphs(node):
        yield body
        yield from body.subgraphs()


def _stage(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    place: Mapping[ir.Node, int],
    readers: _Readers,
    index: int,
    count: int,
    cost: float,
) -> Stage:
    graph = model.graph
    read = dict.fromkeys(value for node in nodes for value in _reads(node))
    # What no node makes, an input or a weight, the last stage gives out.
    loose = [value for value in graph.outputs if value.producer() is None and index + 1 == count]
    inputs = [value for value in graph.inputs if value in read or value in loose]
    sources = {
        value: place[maker]
        for value in read
        if (maker := value.producer()) is not None and place.get(maker, index) != index
    }
    given = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(place[user] > index for user in readers(value))
    ]
    part = ir.convenience.extract(graph, [*inputs, *sources], [*given, *loose])
    part.name = f"{graph.name or 'graph'}.{index}"
    _in_order(part, graph)
    named = {value.name or "": source for value, source in sources.items()}
    made = ir.Model(
        part,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=[function.clone() for function in model.functions.values()],
        metadata_props={
            **model.metadata_props,
            KEY: json.dumps({"index": index, "count": count, "sources": named, "cost": cost}),
        },
    )
    check(made, where=f"stage {index}")
    return Stage(index, count, made, named, cost)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    for body in subgraphs(node):
        for inner in ir.traversal.RecursiveGraphIterator(body):
            yield from (value for value in inner.inputs if value is not None)


def _in_order(part: ir.Graph, graph: ir.Graph) -> None:
    """Put the weights in the whole model's order: the same model gives the same bytes."""
    found = dict(part.initializers)
    part.initializers.clear()
    for name in graph.initializers:
        if name in found:
            part.initializers[name] = found[name]
