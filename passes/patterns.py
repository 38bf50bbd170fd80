"""Rules written in onnxscript's pattern language, applied and proved like our own."""

from typing import TYPE_CHECKING

import onnx_ir as ir

from .contract import EXACT, Contract
from .rules import Builder, Outcome, Rule

if TYPE_CHECKING:
    from onnxscript.rewriter.pattern import RewriteRule


def from_onnxscript(
    pattern: "RewriteRule", name: str, *ops: str, contract: Contract = EXACT
) -> Rule:
    """A rule of ours from one of onnxscript's, whose last nodes are of the types `ops`.

    onnxscript.rewriter matches and builds; where it is applied, checked, proved and taken back is
    the pass manager's, as with every rule. A pattern with several outputs is not supported.
    """

    def propose(build: Builder, node: ir.Node) -> Outcome:
        graph = node.graph
        if graph is None:
            return "it is in no graph"
        # Patterns are matched within one graph; a model is asked for, its weights are not.
        found = pattern.try_rewrite(ir.Model(graph, ir_version=10), graph, node)
        if found is None:
            return "the pattern does not match"
        build.nodes.extend(found.new_nodes)
        build.initializers.extend(found.new_initializers)
        return list(found.new_outputs)

    equation = (pattern.name or name).strip()
    return Rule(name, frozenset(ops), equation, propose, contract)
