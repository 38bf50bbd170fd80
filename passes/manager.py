"""Passes in order, each checked against the model it was given."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .. import Error, PassError
from .check import Facts, check
from .contract import EXACT, Contract, Difference, Outputs, compare
from .infer import forget
from .kinds import Pass
from .rules import Ledger
from .store import tensors

#: Runs a model on sample feeds, without optimisations of the runtime's own that could hide or
#: cause a difference; gives its outputs by name.
Verify = Callable[[ir.Model], Outputs]


@dataclass(frozen=True)
class Step:
    """What one pass did; `max_error` is None where no numbers were compared."""

    name: str
    modified: bool
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    applications: dict[str, int]
    max_error: float | None
    seconds: float


class PassManager:
    """Runs passes in order; after each the structure is checked, and the numbers if it can."""

    def __init__(self, passes: Sequence[ir.passes.PassBase], verify: Verify | None = None) -> None:
        self.passes = tuple(passes)
        self.verify = verify

    def run(self, model: ir.Model) -> tuple[ir.Model, tuple[Step, ...]]:
        """Run every pass on `model`, which in-place passes change; give it and the steps.

        Raises:
            PassError: the model is not valid before the first pass, or a pass failed, broke the
                structure, or broke its contract on the sample feeds; the pass is named.
        """
        _check_first(model)
        reference = self.verify(model) if self.verify else None
        steps: list[Step] = []
        for item in self.passes:
            model, step, reference = self._step(item, model, reference)
            steps.append(step)
        return model, tuple(steps)

    def _step(
        self, item: ir.passes.PassBase, model: ir.Model, reference: Outputs | None
    ) -> tuple[ir.Model, Step, Outputs | None]:
        name, ledger, facts = name_of(item), Ledger(), Facts.of(model)
        nodes, size = count_nodes(model), count_bytes(model)
        started = time.perf_counter()
        result = _call(item, model, ledger)
        difference = None
        if result.modified:
            check(result.model, facts, where=f"pass {name}")
            if self.verify and reference is not None:
                reference, difference = self._compare(item, result.model, reference)
        step = Step(
            name=name,
            modified=result.modified,
            nodes_before=nodes,
            nodes_after=count_nodes(result.model),
            bytes_before=size,
            bytes_after=count_bytes(result.model),
            applications=dict(Counter(made.rule for made in ledger.applications)),
            max_error=difference.error if difference else None,
            seconds=round(time.perf_counter() - started, 4),
        )
        return result.model, step, reference

    def _compare(
        self, item: ir.passes.PassBase, model: ir.Model, reference: Outputs
    ) -> tuple[Outputs, Difference]:
        assert self.verify is not None
        name, contract = name_of(item), contract_of(item)
        try:
            outputs = self.verify(model)
        except Exception as error:
            raise PassError(
                f"the model cannot be run after pass {name}: {error}", mend=f"leave {name} out"
            ) from error
        difference = compare(contract, reference, outputs)
        if difference.broken:
            raise PassError(
                f"pass {name} changed the numbers: error {difference.error:.3g} where its contract"
                f" ({contract.kind}) allows {difference.allowed:.3g}",
                where=f"output {difference.tensor}",
                mend=f"leave {name} out",
            )
        return outputs, difference


def _check_first(model: ir.Model) -> None:
    """Check the model as it came; shapes written in it that are wrong are not its end."""
    where = "the model before the first pass"
    try:
        check(model, where=where)
    except PassError:
        forget(model)
        check(model, where=where)


def _call(item: ir.passes.PassBase, model: ir.Model, ledger: Ledger) -> ir.passes.PassResult:
    try:
        return item.apply(model, ledger) if isinstance(item, Pass) else item(model)
    except Error:
        raise
    except Exception as error:
        raise PassError(
            f"pass {name_of(item)} failed ({type(error).__name__}: {error})",
            mend=f"leave {name_of(item)} out",
        ) from error


def name_of(item: ir.passes.PassBase) -> str:
    """A pass's name in kebab-case: its class's, without a `Pass` at the end."""
    name = type(item).__name__.removesuffix("Pass")
    return "".join(
        f"-{letter.lower()}" if letter.isupper() and index else letter.lower()
        for index, letter in enumerate(name)
    )


def contract_of(item: ir.passes.PassBase) -> Contract:
    """What a pass promises; one that says nothing promises equal bits."""
    contract = getattr(item, "contract", EXACT)
    return contract if isinstance(contract, Contract) else EXACT


def count_nodes(model: ir.Model) -> int:
    """Nodes of the model, its subgraphs and functions; constants are data, not counted."""
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    return sum(
        node.op_type != "Constant"
        for graph in graphs
        for node in ir.traversal.RecursiveGraphIterator(graph)
    )


def count_bytes(model: ir.Model) -> int:
    """Bytes of all tensors, each counted once however often it is used."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors(model)}.values())
