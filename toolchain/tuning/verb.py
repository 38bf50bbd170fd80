"""The verb: it searches, shows what it does, and gives the exit code."""

import sys
from pathlib import Path

from .. import jobs as places
from .. import report
from ..console import emit, people, say
from ..run import Run
from . import showing
from . import tune as searching
from .advising import Advised, Request, advise
from .front import Prefer
from .limits import Limits
from .result import Result
from .split import refuse_nothing
from .study import Budget


def requested(
    *,
    target: str,
    limits: Limits,
    output: Path,
    budget: tuple[int, float],
    jobs: str,
    prefer: Prefer,
    seed: int,
) -> Request:
    """What is asked; raises ConfigError where `jobs` is no place."""
    place = places.Place.of(jobs)
    return Request(target, limits, output, Budget(*budget), place, prefer, seed)


def tune(run: Run, request: Request, *, only_advise: bool, as_json: bool, quiet: bool) -> int:
    """Advice, search and proof under the workspace's lock; 1 where no point holds the limits."""
    if not only_advise:
        refuse_nothing(run.config)
    with run.workspace.locked():
        advised = advise(run, request)
        if only_advise:
            _advice(advised, as_json, quiet)
            return 0
        people(quiet).print(showing.advice(advised))

        def tell(number: int, result: Result | None, why: str) -> None:
            people(quiet).print(showing.trial(number, result, why), markup=False, soft_wrap=True)

        tuned = searching.tune(run, request, advised, tell)
    if as_json:
        emit(tuned.record.model_dump(mode="json"))
    elif not quiet:
        people(file=sys.stdout).print(showing.end(tuned.record))
    _proof(tuned, quiet)
    if not as_json and not quiet:
        for path in tuned.files:
            say(str(path), file=sys.stdout)
    return tuned.exit_code


def _advice(advised: Advised, as_json: bool, quiet: bool) -> None:
    if as_json:
        facts = advised.facts
        emit(
            {
                "hardware": facts.hardware.model_dump(),
                "roofline": [showing.roof(call).model_dump() for call in facts.calls],
                "advice": [each.model_dump() for each in advised.advice],
            }
        )
    elif not quiet:
        people(file=sys.stdout).print(showing.advice(advised))


def _proof(tuned: searching.Tuned, quiet: bool) -> None:
    outcome = tuned.outcome
    if outcome is None:
        why = tuned.record.chosen_reason
        people().print(f"no point holds the limits: {why}", markup=False, soft_wrap=True)
        return
    people(quiet).print(report.table(outcome.report))
    for gate in outcome.failures:
        mend = f", {gate.mend}" if gate.mend else ""
        say(f"gate {gate.name} {gate.status}: {gate.reason}{mend}")
    if outcome.failures:
        line = "the taken point does not hold on data that no trial saw: tune on more, or ask less"
        people().print(line)
