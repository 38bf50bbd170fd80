"""Applies rules over a model until none finds work, one application at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import onnx_ir as ir

from .facts import is_abstract
from .ledger import Application, Ledger
from .rules import Builder, Pairs, Rule, pairs_of
from .splice import Names, replace

#: Rules that still find work after so many sweeps undo each other's.
MAX_SWEEPS = 64


def apply_rules(model: ir.Model, table: Callable[[], Sequence[Rule]], ledger: Ledger) -> bool:
    """Apply a table's rules everywhere until none finds work; whether anything changed.

    `table` is asked anew for every sweep: a rule may remember what it saw in one.
    """
    names, start = Names(model), len(ledger.applications)
    functions = [function.graph for function in model.functions.values()]
    for _ in range(MAX_SWEEPS):
        made = len(ledger.applications)
        by_op = _by_op(table())
        for root in (model.graph, *functions):
            scope = Scope(by_op, ledger, names, opset(root), in_function=root is not model.graph)
            for graph in [root, *root.subgraphs()]:
                scope.sweep(graph)
        if len(ledger.applications) == made:
            break
    return len(ledger.applications) > start


def opset(graph: ir.Graph) -> int:
    """The version of the standard operators that a graph imports, 0 when it imports none."""
    return graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 0))


def _by_op(rules: Sequence[Rule]) -> Callable[[str], Sequence[Rule]]:
    """The rules to try at a node of an op type, in the table's order; `*` is every type."""

    @cache
    def find(op_type: str) -> Sequence[Rule]:
        return [item for item in rules if op_type in item.ops or "*" in item.ops]

    return find


@dataclass(frozen=True)
class Scope:
    """What holds for the graphs below one root: the model's main graph, or a function."""

    by_op: Callable[[str], Sequence[Rule]]
    ledger: Ledger
    names: Names
    opset: int
    in_function: bool

    def sweep(self, graph: ir.Graph) -> None:
        """Try every rule at every node of a graph once, in order."""
        for node in graph:
            if node.domain not in ("", "ai.onnx") or is_abstract(node):
                continue
            for item in self.by_op(node.op_type):
                if node.graph is not graph:
                    break
                self._try(graph, node, item)

    def _try(self, graph: ir.Graph, node: ir.Node, item: Rule) -> None:
        site = node.outputs[0].name or ""
        if not self.ledger.permits(item.name, site):
            return
        build = Builder(self.opset, in_function=self.in_function)
        outcome = item.propose(build, node)
        if isinstance(outcome, str):
            build.discard()
            self.ledger.refuse(item.name, site, outcome)
            return
        pairs = pairs_of(node, outcome)
        if _outlives(node, pairs):
            build.discard()
            self.ledger.refuse(item.name, site, "another of its outputs is read")
            return
        proof = self.ledger.prove(item, build, node, pairs)
        if proof is None:
            build.discard()
            return
        name = node.name or node.op_type
        removed = replace(graph, node, build, pairs, self.names)
        given = tuple(made.op_type for made in build.nodes)
        self.ledger.applications.append(
            Application(item.name, name, site, removed, given, proof.error, proof.reason)
        )


def _outlives(node: ir.Node, pairs: Pairs) -> bool:
    """Whether a node is still read when what takes its place is there: it would be there twice."""
    replaced = {before for before, _ in pairs}
    going = {before.producer() for before in replaced}
    left = [value for value in node.outputs if value not in replaced]
    return any(
        value.is_graph_output() or any(use.node not in going for use in value.uses())
        for value in left
    )
