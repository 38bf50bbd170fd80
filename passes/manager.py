"""Passes in order, each proved against the model it was given."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from .. import PassError
from .check import Facts, check
from .contract import Outputs
from .culprit import Verify, first_bad, first_difference
from .infer import forget, infer
from .ledger import Failure, Ledger
from .prove import Prover
from .store import count_bytes
from .trial import Reference, Trial, contract_of, name_of

OnFailure = Literal["stop", "roll-back"]

#: So many applications of one pass are taken back one by one, then the pass as a whole.
MAX_TAKEN_BACK = 16


@dataclass(frozen=True)
class Step:
    """What one pass did.

    `max_error` is that of the model's outputs on the sample feeds, `local_error` the worst of
    single applications on their own regions; None where nothing was compared. `proved` counts
    the applications that were compared. `failures` were not kept.
    """

    name: str
    modified: bool
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    applications: dict[str, int]
    max_error: float | None
    seconds: float
    proved: int = 0
    local_error: float | None = None
    failures: tuple[Failure, ...] = ()


#: Told of every step, with the model as the pass left it and the record of what rules did.
Watch = Callable[[Step, ir.Model, Ledger], None]


class PassManager:
    """Runs passes in order and proves each.

    Every application of a rule is compared on its own region, unless `prove` is off; after each
    pass the structure is checked and, given `verify`, the model's outputs on sample feeds. What
    fails is sought down to one application, and either stops the run or is taken back. `prover`
    brings another way to run regions, and sizes of dimensions that depend on each other. With
    `explain` the ledger that `watch` is given says for each site why a rule did not apply.
    """

    def __init__(
        self,
        passes: Sequence[ir.passes.PassBase],
        verify: Verify | None = None,
        *,
        prove: bool = True,
        prover: Prover | None = None,
        on_failure: OnFailure = "stop",
        watch: Watch | None = None,
        explain: bool = False,
    ) -> None:
        self.passes = tuple(passes)
        self.verify = verify
        self.prover = (prover or Prover()) if prove else None
        self.on_failure = on_failure
        self.watch = watch
        self.explain = explain

    def run(self, model: ir.Model) -> tuple[ir.Model, tuple[Step, ...]]:
        """Run every pass on `model`, which in-place passes change; give the model and the steps.

        Raises:
            PassError: the model is not valid before the first pass; or, unless failures are to
                be rolled back, a pass failed, broke the structure or changed the numbers.
        """
        _check_first(model)
        outputs: Outputs | None = None
        steps: list[Step] = []
        for item in self.passes:
            model, step, outputs = self._step(item, model, outputs)
            steps.append(step)
        return model, tuple(steps)

    def _step(
        self, item: ir.passes.PassBase, model: ir.Model, known: Outputs | None
    ) -> tuple[ir.Model, Step, Outputs | None]:
        before, started = model.clone(), time.perf_counter()
        reference = Reference(before, self.verify, known)
        nodes, size = count_nodes(model), count_bytes(model)
        trial = Trial.of(item, model, Facts.of(model), reference, self._ledger())
        failures = list(trial.ledger.failures.values())
        self._stop_on(item, failures)
        while trial.failure is not None:
            failure = self._locate(item, before, reference, trial)
            failures.append(failure)
            self._stop_on(item, [failure], trial.cause)
            trial = self._again(item, before, reference, failures)
        made = trial.ledger.applications
        compared = [application.error for application in made if application.error is not None]
        step = Step(
            name=name_of(item),
            modified=trial.modified,
            nodes_before=nodes,
            nodes_after=count_nodes(trial.model),
            bytes_before=size,
            bytes_after=count_bytes(trial.model),
            applications=dict(Counter(application.rule for application in made)),
            max_error=trial.error,
            seconds=round(time.perf_counter() - started, 4),
            proved=len(compared) or trial.places,
            local_error=max(compared, default=trial.local_error),
            failures=tuple(failures),
        )
        if self.watch:
            self.watch(step, trial.model, trial.ledger)
        return trial.model, step, trial.outputs

    def _ledger(self, limit: int | None = None, failures: Sequence[Failure] = ()) -> Ledger:
        refused = frozenset((failure.rule, failure.tensor) for failure in failures)
        return Ledger(limit, refused, judge=self.prover, explain=self.explain)

    def _stop_on(
        self,
        item: ir.passes.PassBase,
        failures: Sequence[Failure],
        cause: Exception | None = None,
    ) -> None:
        if failures and self.on_failure == "stop":
            raise PassError(
                f"pass {name_of(item)} failed: {failures[0]}",
                mend='leave it out, or say on-failure = "roll-back"',
            ) from cause

    def _locate(
        self, item: ir.passes.PassBase, before: ir.Model, reference: Reference, trial: Trial
    ) -> Failure:
        """The failure of a trial, put down to one application where the pass records them."""
        assert trial.failure is not None
        count, facts = len(trial.ledger.applications), Facts.of(before)

        def attempt(limit: int) -> Trial:
            copy = before.clone()
            ledger = Ledger(limit, trial.ledger.refused)
            return Trial.of(item, copy, facts, reference, ledger)

        if count:
            least = first_bad(lambda limit: attempt(limit).failure is not None, count)
            culprit = attempt(least)
            made = culprit.ledger.applications
            if culprit.failure is not None and len(made) == least:
                found = made[-1]
                return replace(culprit.failure, rule=found.rule, node=found.node, tensor=found.site)
        if trial.outputs is not None and self.verify:
            place = first_difference(before, trial.model, self.verify, contract_of(item))
            if place:
                return replace(trial.failure, node=place[0], tensor=place[1])
        return trial.failure

    def _again(
        self,
        item: ir.passes.PassBase,
        before: ir.Model,
        reference: Reference,
        failures: Sequence[Failure],
    ) -> Trial:
        """Run a pass anew without what failed; leave it out when that cannot be told apart."""
        if not failures[-1].rule or len(failures) > MAX_TAKEN_BACK:
            return Trial(before, False, Ledger(), outputs=reference.known)
        copy = before.clone()
        ledger = self._ledger(failures=failures)
        return Trial.of(item, copy, Facts.of(copy), reference, ledger)


def _check_first(model: ir.Model) -> None:
    """Check the model as it came; shapes written in it that are wrong are not its end."""
    where = "the model before the first pass"
    try:
        check(model, where=where)
    except PassError:
        forget(model)
        check(model, where=where)
    infer(model)  # what outputs do not say is settled here, and then no pass may change it


def count_nodes(model: ir.Model) -> int:
    """Nodes of the model, its subgraphs and functions; constants are data, not counted."""
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    return sum(
        node.op_type != "Constant"
        for graph in graphs
        for node in ir.traversal.RecursiveGraphIterator(graph)
    )
