"""The two kinds of passes: one of its own making, one made of rules."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import onnx_ir as ir

from .contract import EXACT, Contract
from .infer import infer
from .ledger import Ledger
from .rules import Rule
from .sweep import apply_rules

#: Inference learns from rewrites, and rewrites from inference: this often at most.
MAX_ROUNDS = 6

#: Since this version of the IR a constant need not be an input too.
FREE_INITIALIZERS = 4


class Pass(ir.passes.InPlacePass):
    """A pass with a contract: a frozen pydantic dataclass whose fields are its options.

    Give it `call(model)`; one made of rules derives from `RulePass` instead.
    """

    contract: ClassVar[Contract] = EXACT

    def apply(self, model: ir.Model, ledger: Ledger) -> ir.passes.PassResult:
        """Run the pass, writing what its rules did into `ledger`."""
        del ledger
        return self(model)


class RulePass(Pass):
    """A pass that applies a table of rules until none finds work."""

    @abstractmethod
    def table(self) -> Sequence[Rule]:
        """The rules, in the order in which they are tried at a node."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Apply the rules, no record kept."""
        return self.apply(model, Ledger())

    def apply(self, model: ir.Model, ledger: Ledger) -> ir.passes.PassResult:
        """Apply the rules until none finds work, each application on the ledger's record."""
        infer(model)
        model.ir_version = max(model.ir_version, FREE_INITIALIZERS)
        modified = False
        for _ in range(MAX_ROUNDS):
            if not apply_rules(model, self.table, ledger):
                break
            modified = True
            if not infer(model):
                break
        return ir.passes.PassResult(model, modified)
