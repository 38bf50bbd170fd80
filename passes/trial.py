"""One run of one pass on one model, with everything that may be wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self, get_args

import onnx_ir as ir

from .. import Error
from .beside import HEAVY, rounds, worst_place
from .check import Facts, check
from .contract import EXACT, SEEN, Contract, Kind, Outputs, compare
from .culprit import Verify
from .kinds import Pass
from .ledger import Failure, Ledger
from .store import count_bytes

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass
class Reference:
    """The outputs of a model before a pass, made when they are first asked for.

    A pass that changes nothing asks for none: the model is not run for it.
    """

    model: ir.Model
    verify: Verify | None
    known: Outputs | None = None

    def outputs(self) -> Outputs | None:
        """The outputs, None where nothing runs the model."""
        if self.known is None and self.verify is not None:
            self.known = self.verify(self.model)
        return self.known


@dataclass(frozen=True)
class Trial:
    """A model after a pass; `failure` says what is wrong, None if nothing is known to be.

    `local_error` is the worst of `places` that were compared on their own.
    """

    model: ir.Model
    modified: bool
    ledger: Ledger
    outputs: Outputs | None = None
    error: float | None = None
    failure: Failure | None = None
    cause: Exception | None = None
    local_error: float | None = None
    places: int = 0

    @classmethod
    def of(
        cls,
        item: ir.passes.PassBase,
        model: ir.Model,
        facts: Facts,
        reference: Reference,
        ledger: Ledger,
    ) -> Self:
        """Run a pass, check the structure, and compare the numbers where they can be had."""
        try:
            result = item.apply(model, ledger) if isinstance(item, Pass) else item(model)
            if not result.modified:
                return cls(result.model, False, ledger, outputs=reference.known)
            check(result.model, facts)
        except Exception as error:  # a third party's pass may raise anything
            return cls(model, True, ledger, failure=_broken(error), cause=error)
        ran = cls(result.model, True, ledger)
        if reference.verify is None:
            return ran
        contract = _seen(contract_of(item), reference.model)
        if contract.by_place and not ledger.applications:
            heavy = count_bytes(reference.model) > HEAVY
            placed = ran if heavy else ran._by_place(contract, reference, reference.verify)
            if placed.places or placed.failure or (heavy and rounds(result.model)):
                return placed
        return ran._by_outputs(contract, reference, reference.verify)

    def _by_outputs(self, contract: Contract, reference: Reference, verify: Verify) -> Self:
        """The same with its outputs on the sample feeds compared."""
        wanted = reference.outputs()
        assert wanted is not None
        try:
            outputs = verify(self.model)
        except Exception as error:  # a runtime's errors share no narrower class
            return replace(self, failure=_broken(error), cause=error)
        found = compare(contract.grown(), wanted, outputs)
        failure = Failure.of(found.error, found.allowed, "", "", found.tensor)
        failure = failure if found.broken else None
        return replace(self, outputs=outputs, error=found.error, failure=failure)

    def _by_place(self, contract: Contract, reference: Reference, verify: Verify) -> Self:
        """The same with each place compared on its own."""
        try:
            found = worst_place(reference.model, self.model, verify, contract)
        except Exception as error:
            return replace(self, failure=_broken(error), cause=error)
        if found is None:
            return self
        worst, places = found
        failure = None
        if worst.broken:
            named = (n for n in self.model.graph for v in n.outputs if v.name == worst.tensor)
            node = next((n.name or n.op_type for n in named), "")
            failure = Failure.of(worst.error, worst.allowed, "", node, worst.tensor)
        return replace(self, failure=failure, local_error=worst.error, places=places)


def _seen(contract: Contract, model: ir.Model) -> Contract:
    """What can be seen of a contract when a model is run."""
    halves = any(value.dtype in _HALVES for value in model.graph.initializers.values())
    if contract.kind != "exact" or not halves:
        return contract
    return replace(SEEN, by_place=contract.by_place)


def _broken(error: Exception) -> Failure:
    what = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
    return Failure("", "", "", reason=" ".join(what.split())[:400])


def name_of(item: ir.passes.PassBase) -> str:
    """A pass's name in kebab-case: its class's, without a `Pass` at the end."""
    name = type(item).__name__.removesuffix("Pass")
    return "".join(
        f"-{letter.lower()}" if letter.isupper() and index else letter.lower()
        for index, letter in enumerate(name)
    )


def contract_of(item: ir.passes.PassBase) -> Contract:
    """What a pass promises; one that says nothing promises equal bits.

    A room that does not know this one says it with a record of its own, of the same fields.
    """
    given = getattr(item, "contract", EXACT)
    if isinstance(given, Contract):
        return given
    tolerance = getattr(given, "tolerance", None)
    kinds = [kind for kind in get_args(Kind) if kind == getattr(given, "kind", None)]
    if not kinds or not isinstance(tolerance, Mapping):
        return EXACT
    return Contract(kinds[0], tolerance, by_place=bool(getattr(given, "by_place", False)))
