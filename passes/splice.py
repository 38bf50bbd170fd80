"""Puts what a rule made in the place of what it replaces, names and metadata kept."""

from collections.abc import Iterator

import onnx_ir as ir

from .check import subgraphs
from .rules import Builder, Pairs
from .sizes import is_vague

#: How the names of values that have been replaced end; none of them is left in the graph.
_REPLACED = "__replaced"


class Names:
    """Names no value of the model has."""

    def __init__(self, model: ir.Model) -> None:
        self.taken: set[str | None] = {None, ""}
        #: The last number that a stem was given.
        self.numbers: dict[str, int] = {}
        #: The constants that bear, or bore, a name.
        self.constants: dict[str | None, ir.Value] = {}
        for graph in graphs(model):
            self.taken.update(value.name for value in graph.inputs)
            self.taken.update(graph.initializers)
            self.taken.update(value.name for node in graph for value in node.outputs)
            lifted = (node.outputs[0] for node in graph if node.op_type == "Constant")
            self.constants.update((v.name, v) for v in (*graph.initializers.values(), *lifted))

    def unique(self, stem: str) -> str:
        """`stem` itself, or the first of `stem_1`, `stem_2`... that is free."""
        name, number = stem, self.numbers.get(stem, 0)
        while name in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.numbers[stem] = number
        self.taken.add(name)
        return name

    def is_left(self, name: str) -> bool:
        """Whether a name was that of a constant which is gone, or is called otherwise now."""
        value = self.constants.get(name)
        if value is None or value.name != name:
            return value is not None
        maker = value.producer()
        return not value.is_initializer() and (maker is None or maker.graph is None)


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, the functions' graphs and every graph inside them."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield graph
        yield from graph.subgraphs()


def replace(
    graph: ir.Graph, node: ir.Node, build: Builder, pairs: Pairs, names: Names
) -> tuple[str, ...]:
    """Put values in the places of others and drop what nothing reads; the op types dropped.

    What was built stands before `node`, which is the first in order of what is replaced.
    """
    site = node.outputs[0].name or node.op_type
    for value in build.initializers:
        value.name = names.unique(value.name or f"{site}_constant")
        graph.initializers.add(value)
    for before, after in pairs:
        if after.name is None and after.producer() in build.nodes:
            after.name, before.name = before.name, names.unique(f"{before.name}{_REPLACED}")
        _inherit(before, after)
    for made in build.nodes:
        for value in made.outputs:
            if value.name is None:
                value.name = names.unique(f"{site}_{made.op_type}")
    graph.insert_before(node, build.nodes)
    makers = [maker for before, _ in pairs if (maker := before.producer()) is not None]
    for before, after in pairs:
        _substitute(graph, node, before, after, names)
    removed = tuple(op for maker in dict.fromkeys((*makers, node)) for op in drop(maker))
    for made in build.nodes:
        _take_over(made, build.origin.get(made, node))
    _take_over_weights(build, names)
    return removed


def _take_over(made: ir.Node, origin: ir.Node) -> None:
    """Let a node bear the metadata of the one it came from, and its names, if that one is gone."""
    made.metadata_props.update(origin.metadata_props)
    if origin.graph is not None or made.op_type != origin.op_type:
        return
    made.name = origin.name
    for new, old in zip(made.outputs, origin.outputs, strict=True):
        if not new.is_graph_output() and old.name and _REPLACED not in old.name:
            new.name, old.name = old.name, new.name


def _take_over_weights(build: Builder, names: Names) -> None:
    """Let a changed weight bear the name of the one it replaced, if that one is gone."""
    for value in build.initializers:
        stem = build.stems.get(value)
        if stem and stem != value.name and names.is_left(stem):
            value.name = stem
        names.constants[value.name] = value


def _inherit(before: ir.Value, after: ir.Value) -> None:
    """Let the new value know what is known of the old one's type and shape.

    What an input or output of the graph is declared as stays.
    """
    if after.is_graph_input() or after.is_graph_output():
        return
    if after.type is None:
        after.type = before.type
    if before.shape is None or not isinstance(after.type, ir.TensorType):
        return
    if after.shape is None or (before.is_graph_output() and len(after.shape) == len(before.shape)):
        after.shape = before.shape.copy()
    elif len(after.shape) == len(before.shape) and not after.is_initializer():
        dims = zip(after.shape, before.shape, strict=True)
        after.shape = ir.Shape([_sharper(new, old) for new, old in dims])


def _sharper(new: int | ir.SymbolicDim, old: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    """The dimension of which more is known."""
    return old if is_vague(new) or (isinstance(old, int) and not isinstance(new, int)) else new


def _substitute(
    graph: ir.Graph, node: ir.Node, before: ir.Value, after: ir.Value, names: Names
) -> None:
    if before.is_graph_output():
        after = _as_output(graph, node, before, after, names)
    before.replace_all_uses_with(after, replace_graph_outputs=True)


def _as_output(
    graph: ir.Graph, node: ir.Node, before: ir.Value, after: ir.Value, names: Names
) -> ir.Value:
    """A value that may stand as the graph's output under the old one's name."""
    producer = after.producer()
    if producer is not None and producer.graph is graph and not after.is_graph_output():
        if before.name and _REPLACED not in before.name:
            after.name, before.name = before.name, names.unique(f"{before.name}{_REPLACED}")
        return after
    name = before.name
    before.name = names.unique(f"{name}{_REPLACED}")
    copy = ir.node("Identity", [after])
    copy.outputs[0].name = name
    copy.outputs[0].type, copy.outputs[0].shape = before.type, before.shape
    graph.insert_before(node, copy)
    return copy.outputs[0]


def drop(node: ir.Node) -> tuple[str, ...]:
    """Remove a node that nothing reads, and then what only it read; the op types removed."""
    removed: list[str] = []
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if item.graph is None or any(v.uses() or v.is_graph_output() for v in item.outputs):
            continue
        inputs = [value for value in item.inputs if value is not None]
        inputs.extend(_captured(item))
        item.graph.remove(item, safe=True)
        removed.append(item.op_type)
        for value in inputs:
            producer = value.producer()
            if producer is not None:
                waiting.append(producer)
            else:
                drop_initializer(value)
    return tuple(removed)


def _captured(node: ir.Node) -> list[ir.Value]:
    """Detach the bodies of a control-flow node that goes away; the values they had read."""
    found: list[ir.Value] = []
    for body in subgraphs(node):
        for inner in ir.traversal.RecursiveGraphIterator(body):
            found.extend(value for value in inner.inputs if value is not None)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
    return found


def drop_initializer(value: ir.Value) -> None:
    """Remove a weight that nothing reads any more."""
    if value.is_initializer() and not (
        value.uses() or value.is_graph_input() or value.is_graph_output()
    ):
        graph = value.graph
        if graph is not None and value.name:
            del graph.initializers[value.name]
