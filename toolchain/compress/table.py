"""The latency table: what a group of each kind costs at each width, measured as engines."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...deploy.backend import Backend, Profile, Run
from ...passes import PassManager, load, save
from ...passes.coupling import Group
from ...passes.remove import Remove
from ..narrowing import through
from .cuts import narrowing_of
from .stretch import Array
from .subject import Choice, Plan

Feed = Mapping[str, Array]
#: Runs of a pair of engines, at least and at most.
FEWEST, MOST = 5, 200
ONE_THREAD = {"threads": 1}
#: What makes groups alike: kind, width, units, outputs.
Kind = tuple[str, int, int, int]


class Clock:
    """Builds pruned engines of one backend and times them beside the dense one, in turns.

    On one thread, by the CPU time of the caller: the latency of a machine that does nothing else.
    """

    def __init__(
        self, model: Path, backend: Backend, feed: Feed, groups: Sequence[Group] = ()
    ) -> None:
        self._model, self._backend, self._feed = model, backend, feed
        self._groups = groups
        self._aside = tempfile.TemporaryDirectory(prefix="llmdeploy-")
        self._dense = Path(self._aside.name) / "dense"
        self._build({}, self._dense)

    def close(self) -> None:
        """Remove the engines."""
        self._aside.cleanup()

    def ratio(self, plan: Plan, budget_s: float = 1.5) -> tuple[float, float]:
        """Seconds of the dense model, and of one that keeps the plan's units: of each the least."""
        folder = Path(self._aside.name) / "pruned"
        self._build(plan, folder)
        with self._backend.runner(self._dense) as dense, self._backend.runner(folder) as pruned:
            narrow = through(narrowing_of(self._groups, plan), pruned)
            return least((dense, narrow), self._feed, budget_s)

    def _build(self, plan: Plan, folder: Path) -> None:
        model = load(self._model)
        if plan:
            model = Remove(dict(plan))(model).model
        lowering = self._backend.lowering("fp32")
        model, _ = PassManager(lowering, on_failure="roll-back").run(model)
        with tempfile.TemporaryDirectory(dir=self._aside.name) as lowered:
            save(model, Path(lowered))
            self._backend.build(Path(lowered) / "model.onnx", folder, Profile(), ONE_THREAD)


def least(runs: tuple[Run, Run], feed: Feed, budget_s: float) -> tuple[float, float]:
    """The least CPU seconds of the calling thread that each of two takes, run in turns."""
    found, ends = [float("inf"), float("inf")], time.perf_counter() + budget_s
    for count in range(MOST):
        if count > FEWEST and time.perf_counter() > ends:
            break
        for index, run in enumerate(runs):
            started = time.thread_time()
            run(feed)
            found[index] = min(found[index], time.thread_time() - started)
    return found[0], found[1]


def kind_of(choice: Choice, outputs: Mapping[str, int]) -> Kind:
    """Groups of one kind cost the same at the same width."""
    group = choice.group
    return group.kind, group.width, group.units, outputs[group.consumer]


def seconds(
    choices: Sequence[Choice], outputs: Mapping[str, int], clock: Clock
) -> tuple[dict[str, tuple[float, ...]], float]:
    """Seconds that each level of each group takes more than none at all of it, and the model's.

    All groups of a kind are pruned alike and their share is an equal part of what that saves.
    """
    kinds: dict[Kind, list[Choice]] = {}
    for choice in choices:
        kinds.setdefault(kind_of(choice, outputs), []).append(choice)
    found: dict[str, tuple[float, ...]] = {}
    whole = list[float]()
    for alike in kinds.values():
        saved = [0.0]
        for at in range(1, max(len(each.levels) for each in alike)):
            able = [each for each in alike if at < len(each.levels)]  # not all can lose the last
            plan = {each.group.consumer: each.levels[at].kept for each in able}
            dense, pruned = clock.ratio(plan)
            whole.append(dense)
            saved.append((1 - pruned / dense) / len(able))
        shares = [-share for share in rising(saved)]
        for each in alike:
            found[each.group.consumer] = tuple(shares[: len(each.levels)])
    model = min(whole, default=0.0)
    return {name: tuple(share * model for share in shares) for name, shares in found.items()}, model


def rising(values: Sequence[float]) -> list[float]:
    """The nearest values that never fall (isotonic regression): a narrower layer is not slower."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (one, few), (two, more) = blocks[-2:]
            blocks[-2:] = [((one * few + two * more) / (few + more), few + more)]
    return [max(value, 0.0) for value, count in blocks for _ in range(count)]
