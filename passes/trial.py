"""One run of one pass on one model, with everything that may be wrong with it."""

from dataclasses import dataclass
from typing import Self

import onnx_ir as ir

from .. import Error
from .check import Facts, check
from .contract import EXACT, Contract, Outputs, compare
from .culprit import Verify
from .kinds import Pass
from .ledger import Failure, Ledger


@dataclass(frozen=True)
class Trial:
    """A model after a pass; `failure` says what is wrong, None if nothing is known to be."""

    model: ir.Model
    modified: bool
    ledger: Ledger
    outputs: Outputs | None = None
    error: float | None = None
    failure: Failure | None = None
    cause: Exception | None = None

    @classmethod
    def of(
        cls,
        item: ir.passes.PassBase,
        model: ir.Model,
        facts: Facts,
        reference: Outputs | None,
        verify: Verify | None,
        ledger: Ledger,
    ) -> Self:
        """Run a pass, check the structure, and compare the numbers where they can be had."""
        try:
            result = item.apply(model, ledger) if isinstance(item, Pass) else item(model)
            if not result.modified:
                return cls(result.model, False, ledger, outputs=reference)
            check(result.model, facts)
        except Exception as error:  # a third party's pass may raise anything
            return cls(model, True, ledger, failure=_broken(error), cause=error)
        if verify is None or reference is None:
            return cls(result.model, True, ledger)
        try:
            outputs = verify(result.model)
        except Exception as error:  # a runtime's errors share no narrower class
            return cls(result.model, True, ledger, failure=_broken(error), cause=error)
        found = compare(contract_of(item).grown(), reference, outputs)
        failure = Failure.of(found.error, found.allowed, "", "", found.tensor)
        return cls(
            result.model,
            True,
            ledger,
            outputs,
            found.error,
            failure if found.broken else None,
        )


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
    """What a pass promises; one that says nothing promises equal bits."""
    contract = getattr(item, "contract", EXACT)
    return contract if isinstance(contract, Contract) else EXACT
