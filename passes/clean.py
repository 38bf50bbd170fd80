"""The pass `clean`: nothing is left that does nothing."""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .duplicates import merge_equal_weights, same_as_earlier
from .kinds import RulePass
from .ledger import Application, Ledger
from .noop_rules import NOOP
from .rules import Rule
from .splice import drop, graphs


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Clean(RulePass):
    """Drops what does nothing, what nothing reads, and what is there twice.

    Constants become initializers, and doc strings go: they hold the exporter's stack traces.
    """

    merge_weights: bool = True

    def table(self) -> Sequence[Rule]:
        """No-ops, and nodes that compute the same."""
        return (*NOOP, same_as_earlier())

    def apply(self, model: ir.Model, ledger: Ledger) -> ir.passes.PassResult:
        """Drop dead code and duplicates of weights, then apply the rules."""
        modified = tidy(model)
        if self.merge_weights:
            modified |= merge_weights(model, ledger)
        return ir.passes.PassResult(model, super().apply(model, ledger).modified or modified)


def tidy(model: ir.Model) -> bool:
    """Drop dead nodes, functions and weights, and lift constants; whether anything changed."""
    passes = ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    )
    dead = sum(len(drop(node)) for graph in graphs(model) for node in reversed(graph))
    return passes(model).modified or dead > 0


def merge_weights(model: ir.Model, ledger: Ledger) -> bool:
    """Merge equal weights of the main graph, each on the ledger's record."""
    gone = list(merge_equal_weights(model.graph, ledger))
    ledger.applications.extend(Application("equal-weights", "", name, (), (), 0.0) for name in gone)
    return bool(gone)
