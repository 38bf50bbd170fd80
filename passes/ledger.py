"""What rules did to a model, application by application, and what they may not do."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Self

import onnx_ir as ir

from .prove import Proof
from .rules import Builder, Pairs, Rule

Judge = Callable[[Rule, Builder, Pairs], Proof]


@dataclass(frozen=True)
class Application:
    """One application of one rule: where, the op types it took and gave, and its proof.

    `error` is max|after - before| / max|before| over what was rewritten, None where it was not
    compared, for `reason`.
    """

    rule: str
    node: str
    site: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    error: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Failure:
    """What was not kept: an application or a pass that gave other numbers, or a broken graph.

    Empty where it is not known: `rule` of a pass that does not record its applications.
    """

    rule: str
    node: str
    tensor: str
    error: float | None = None
    allowed: float | None = None
    reason: str = ""

    @classmethod
    def of(cls, error: float, allowed: float, rule: str, node: str, tensor: str) -> Self:
        """A failure by numbers; an error that is not finite is put in words."""
        if isfinite(error):
            return cls(rule, node, tensor, error, allowed)
        what = "its shape, its dtype or the places of its NaN and infinities differ"
        return cls(rule, node, tensor, None, allowed, what)

    def __str__(self) -> str:
        places = (("rule", self.rule), ("node", self.node), ("tensor", self.tensor))
        where = ", ".join(f"{what} {name}" for what, name in places if name)
        what = self.reason or f"error {self.error:.3g} where {self.allowed:.3g} is allowed"
        return f"{what}, {where}" if where else what


class Ledger:
    """The record of one run of one pass.

    `limit` stops after so many applications and `refused` bars some (rule, site): so one is
    sought, and taken back. `judge` proves each before it is made.
    """

    def __init__(
        self,
        limit: int | None = None,
        refused: frozenset[tuple[str, str]] = frozenset(),
        *,
        judge: Judge | None = None,
        explain: bool = False,
    ) -> None:
        self.limit = limit
        self.refused = refused
        self.judge = judge
        self.explain = explain
        self.applications: list[Application] = []
        self.failures: dict[tuple[str, str], Failure] = {}
        self.reasons: dict[tuple[str, str], str] = {}

    def permits(self, rule: str, site: str) -> bool:
        """Whether this rule may rewrite this site."""
        if self.limit is not None and len(self.applications) >= self.limit:
            return False
        return (rule, site) not in self.refused and (rule, site) not in self.failures

    def refuse(self, rule: str, site: str, reason: str) -> None:
        """Write down why a rule did not apply, when somebody asked for reasons."""
        if self.explain:
            self.reasons[rule, site] = reason

    def prove(self, rule: Rule, build: Builder, node: ir.Node, pairs: Pairs) -> Proof | None:
        """The proof of an application, None when it is refuted: that is written down.

        What cannot be run is refused only: it may be that sizes were drawn which never come.
        """
        proof = self.judge(rule, build, pairs) if self.judge else Proof(None, reason="")
        if not proof.refuted:
            return proof
        site = node.outputs[0].name or ""
        if proof.reason:
            self.refuse(rule.name, site, proof.reason)
            return None
        name, error = node.name or node.op_type, proof.error or 0.0
        failure = Failure.of(error, proof.allowed, rule.name, name, site)
        self.failures[rule.name, site] = failure
        return None
