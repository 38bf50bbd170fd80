"""The search: Optuna proposes points, hands measure them, and a journal survives a kill.

Three objectives (drop, time as a share of float's, bytes as a share of float's) under constraints,
by the multi-objective tree-structured Parzen estimator (Ozaki et al., 2022). It is told what a
limit lacks at the bad end of its noise, and so looks for points that surely hold; and what a
stopped trial missed. One whose worker died is not held against its point.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ... import Error, MissingError
from .hands import Hands, LostError
from .limits import Limits, guarded
from .result import Result
from .space import Settings, Space, Value

JOURNAL = "journal.log"
#: Proposals that were measured before are passed over so often before a new point is drawn.
STUBBORN = 8
#: Random points before the estimator is asked, beside those of the rules.
BEGIN = 6
#: A worker is waited for no longer than this share of the search's time beyond its end.
GRACE = 0.5
RESULT = "result"
Take = Callable[[Settings], "Future[Result]"]
Tell = Callable[[int, Result | None, str], object]


@dataclass(frozen=True)
class Budget:
    """How long is searched: trials in all, and minutes of this run."""

    trials: int
    minutes: float


@dataclass
class Search:
    """One study and what is known of it; `results` of whole and of stopped trials."""

    study: Any
    space: Space
    limits: Limits
    seed: int
    results: list[Result] = field(default_factory=list[Result])
    lost: list[str] = field(default_factory=list[str])
    busy: bool = False
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def run(self, hands: Hands, take: Take, budget: Budget, tell: Tell) -> None:
        """Measure until the budget is spent, or nothing is left that could reach the limits.

        Raises:
            Error: what no trial would be spared: a full disk, a package that is missing.
        """
        ends = time.monotonic() + budget.minutes * 60
        running: dict[Future[Result], tuple[Any, dict[str, Value]]] = {}
        while True:
            room = len(self.results) + len(running) < budget.trials and time.monotonic() < ends
            if room and len(running) < hands.count:
                asked = self._ask([settings for _, settings in running.values()])
                if asked is not None:
                    running[take(asked[1])] = asked
                    continue
            if not running:
                return
            late = ends + GRACE * budget.minutes * 60 - time.monotonic()
            done, _ = wait(running, timeout=max(late, 0.1), return_when=FIRST_COMPLETED)
            for future in done:
                self.busy = len(running) > 1
                self._settle(future, *running.pop(future), tell)
            if not done and time.monotonic() > ends:
                self._give_up(running, tell)
                return

    def _give_up(self, running: Mapping[Any, tuple[Any, Settings]], tell: Tell) -> None:
        for trial, _ in running.values():
            self._failed(trial, "the time was up", tell)

    def _settle(self, future: "Future[Result]", trial: Any, settings: Settings, tell: Tell) -> None:
        del settings
        try:
            result = future.result()
        except LostError as error:
            self._failed(trial, str(error), tell)
            return
        trial.set_user_attr(RESULT, result.model_dump_json())
        beyond = guarded(self.limits, result.figures) if result.whole else result.beyond
        for name, value in beyond.items():
            trial.set_constraint(name, float(value))
        self.results.append(result)
        if result.whole:
            self.study.tell(trial, objectives(result))
        else:
            self.study.tell(trial, state=_states().PRUNED)
        tell(trial.number, result, "")

    def _failed(self, trial: Any, why: str, tell: Tell) -> None:
        trial.set_user_attr("lost", why)
        self.study.tell(trial, state=_states().FAIL)
        self.lost.append(why)
        tell(trial.number, None, why)

    def _ask(self, running: Sequence[Settings]) -> tuple[Any, dict[str, Value]] | None:
        """A trial at a point that is new and may reach the limits; None where there is none."""
        for _ in range(STUBBORN):
            trial = self.study.ask()
            settings = suggested(self.space, trial)
            if self._new(settings, running):
                return trial, settings
            self.study.tell(trial, state=_states().FAIL)
        left = [each for each in self.space.points() if self._new(each, running)]
        if not left:
            return None
        self.study.enqueue_trial(encoded(self.space, left[self._random.integers(len(left))]))
        trial = self.study.ask()
        return trial, suggested(self.space, trial)

    def _new(self, settings: Settings, running: Sequence[Settings]) -> bool:
        known = [*running, *(result.settings for result in self.results)]
        return dict(settings) not in known and not self.hopeless(settings)

    def hopeless(self, settings: Settings) -> bool:
        """Whether a milder point lost too much already, or a harsher one was too slow or large."""
        milder = self.space.milder
        for result in self.results:
            for name in result.sure:
                one, two = result.settings, settings
                if name == "max_drop" and milder(one, two):
                    return True
                if name != "max_drop" and milder(two, one):
                    return True
        return False


def objectives(result: Result) -> list[float]:
    """Drop, time and bytes as shares of float's: of each, less is better."""
    figures = result.figures
    return [figures["drop"], 1 / figures["speedup"], figures["size_share"]]


def opened(
    folder: Path,
    name: str,
    space: Space,
    limits: Limits,
    seeds: Sequence[Settings],
    seed: int,
) -> Search:
    """The study of that name in the folder's journal, as far as it is; else a new one.

    What ran when a search was killed is asked again.

    Raises:
        MissingError: Optuna is not installed.
        Error: the journal cannot be read or written.
    """
    optuna = _optuna()
    journal = optuna.storages.journal
    folder.mkdir(parents=True, exist_ok=True)
    try:
        storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=len(seeds) + BEGIN
        )
        known = name in optuna.get_all_study_names(storage)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["minimize"] * 3,
            sampler=sampler,
            load_if_exists=True,
        )
    except (OSError, ValueError, KeyError) as error:
        mend = "mend the permissions, or pass --force to begin anew"
        raise Error(f"the search's journal: {error}", where=folder / JOURNAL, mend=mend) from error
    if not known:
        for point in seeds:
            study.enqueue_trial(encoded(space, point))
    search = Search(study, space, limits, seed)
    _again(search, optuna.trial.TrialState)
    return search


def _again(search: Search, states: Any) -> None:
    """Take what was measured before; ask again what was running."""
    for trial in search.study.get_trials(deepcopy=False):
        if RESULT in trial.user_attrs:
            search.results.append(Result.model_validate_json(trial.user_attrs[RESULT]))
        if trial.state == states.RUNNING:
            search.study.tell(trial.number, state=states.FAIL)
            if RESULT not in trial.user_attrs and trial.params:
                search.study.enqueue_trial(trial.params)


def encoded(space: Space, settings: Settings) -> dict[str, Any]:
    """A point as Optuna's parameters: of ordered knobs the place of the value."""
    return {
        knob.name: knob.values.index(settings[knob.name]) if knob.ordered else settings[knob.name]
        for knob in space.knobs
        if knob.name in settings and len(knob.values) > 1
    }


def suggested(space: Space, trial: Any) -> dict[str, Value]:
    """The point that a trial proposes."""
    made: dict[str, Value] = {}
    for knob in space.knobs:
        if not knob.counts(made):
            continue
        if len(knob.values) == 1:
            made[knob.name] = knob.values[0]
        elif knob.ordered:
            made[knob.name] = knob.values[trial.suggest_int(knob.name, 0, len(knob.values) - 1)]
        else:
            made[knob.name] = trial.suggest_categorical(knob.name, list(knob.values))
    return made


def _states() -> Any:
    return _optuna().trial.TrialState


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        mend = "pip install 'llmdeploy[tune]'"
        raise MissingError("optuna is not installed", mend=mend) from error
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
