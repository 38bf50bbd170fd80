"""The search over a made-up model: it finds what there is, passes over what cannot be, and goes on."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from llmdeploy import Error
from llmdeploy.toolchain.tuning.front import chosen, front, nearest, shortfalls
from llmdeploy.toolchain.tuning.hands import LostError
from llmdeploy.toolchain.tuning.limits import Limits, violations
from llmdeploy.toolchain.tuning.result import Result
from llmdeploy.toolchain.tuning.space import Knob, Space
from llmdeploy.toolchain.tuning.study import Budget, Search, opened

SPACE = Space(
    knobs=(
        Knob(name="precision", values=("int8", "fp32")),
        Knob(name="prune", values=("off", "shares")),
        Knob(
            name="prune.neurons",
            values=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
            ordered=True,
            of="prune",
            where=("shares",),
        ),
    )
)
POINTS = len(list(SPACE.points()))
Figures = Callable[[Mapping[str, Any]], dict[str, float]]


def figures(settings: Mapping[str, Any]) -> dict[str, float]:
    """INT8 is twice as fast; what is pruned makes it faster and costs its square."""
    share = settings.get("prune.neurons", 0.0)
    speed = (2.0 if settings["precision"] == "int8" else 1.0) / (1 - share / 2)
    return {
        "drop": share**2 / 10,
        "drop_high": share**2 / 9,
        "speedup": speed,
        "speedup_low": speed * 0.98,
        "latency_ms": 10 / speed,
        "size_mb": 90 / speed,
        "size_share": 1 / speed,
    }


class Calls:
    """Hands that measure at once, and remember what they were asked."""

    def __init__(self, limits: Limits, count: int = 1, fails: int | None = None) -> None:
        self.count, self.limits, self.asked = count, limits, list[dict[str, Any]]()
        self._fails = fails

    def take(self, settings: Mapping[str, Any]) -> "Future[Result]":
        self.asked.append(dict(settings))
        told: Future[Result] = Future()
        if len(self.asked) - 1 == self._fails:
            told.set_exception(LostError("its worker died"))
        else:
            told.set_result(self.measured(settings))
        return told

    def measured(self, settings: Mapping[str, Any]) -> Result:
        found = figures(settings)
        beyond = violations(self.limits, found)
        sure = tuple(name for name, value in beyond.items() if value > 0.02)
        why = f"{sure[0]} is missed" if sure else None
        return Result(settings=dict(settings), figures=found, beyond=beyond, sure=sure, stopped=why)

    def close(self) -> None: ...


def search(folder: Path, limits: Limits) -> Search:
    return opened(folder, "name", SPACE, limits, list(SPACE.points())[:2], seed=0)


def run(found: Search, calls: Calls, trials: int) -> None:
    found.run(calls, calls.take, Budget(trials, 1.0), lambda *_: None)  # pyright: ignore


def test_it_finds_the_point_that_loses_least_within_the_limits(tmp_path: Path):
    limits = Limits(min_speedup=2.4, max_drop=0.02)
    found, calls = search(tmp_path, limits), Calls(limits)
    run(found, calls, trials=POINTS)
    every = [calls.measured(point) for point in SPACE.points()]
    best = chosen(every, limits, "score")
    taken = chosen(found.results, limits, "score")
    assert best is not None
    assert taken is not None
    assert taken.figures["drop"] == best.figures["drop"]
    assert len(calls.asked) < POINTS  # what milder and harsher points tell was not measured
    assert len({str(each) for each in calls.asked}) == len(calls.asked)


def test_limits_that_nothing_reaches_end_with_the_nearest(tmp_path: Path):
    limits = Limits(min_speedup=1000, max_drop=0.01)
    found, calls = search(tmp_path, limits), Calls(limits)
    run(found, calls, trials=POINTS)
    assert chosen(found.results, limits, "score") is None
    near = nearest(found.results)
    assert near is not None
    assert "asked for 1000" in shortfalls(near, limits)
    assert all(not result.fits for result in found.results)


def test_a_lost_worker_is_one_trial(tmp_path: Path):
    limits = Limits(max_drop=0.5)
    found, calls = search(tmp_path, limits), Calls(limits, count=2, fails=1)
    run(found, calls, trials=5)
    assert len(found.lost) == 1
    assert len(found.results) == 5


def test_an_error_that_no_trial_is_spared_ends_the_search(tmp_path: Path):
    limits = Limits(max_drop=0.5)
    found, calls = search(tmp_path, limits), Calls(limits)

    def full(_: Mapping[str, Any]) -> "Future[Result]":
        told: Future[Result] = Future()
        told.set_exception(Error("cannot write: no space left on device"))
        return told

    with pytest.raises(Error, match="no space left"):
        found.run(calls, full, Budget(5, 1.0), lambda *_: None)  # pyright: ignore


def test_a_search_that_was_killed_goes_on(tmp_path: Path):
    limits = Limits(max_drop=0.5)
    first = search(tmp_path, limits)
    run(first, Calls(limits), trials=3)
    unfinished = first.study.ask()  # and here the process dies
    from llmdeploy.toolchain.tuning.study import suggested

    settings = suggested(SPACE, unfinished)
    again, calls = search(tmp_path, limits), Calls(limits)
    assert [each.settings for each in again.results] == [each.settings for each in first.results]
    run(again, calls, trials=6)
    assert len(calls.asked) == 3
    if settings not in [each.settings for each in first.results]:
        assert settings in calls.asked


def test_the_budget_of_trials_counts_those_of_before(tmp_path: Path):
    limits = Limits(max_drop=0.5)
    run(search(tmp_path, limits), Calls(limits), trials=3)
    calls = Calls(limits)
    run(search(tmp_path, limits), calls, trials=3)
    assert not calls.asked


def test_the_front_is_what_nothing_beats_in_all_three():
    calls = Calls(Limits(max_drop=0.5))
    results = [calls.measured(point) for point in SPACE.points()]
    best = front(results)
    assert all(result.whole for result in best)
    assert any(result.settings["prune"] == "off" for result in best)
    slow = min(results, key=lambda result: result.figures["speedup"])
    assert slow not in best


def test_what_is_preferred_decides_among_points_that_fit():
    limits = Limits(max_drop=0.02)
    calls = Calls(limits)
    results = [calls.measured(point) for point in SPACE.points()]
    by_score, by_speed = chosen(results, limits, "score"), chosen(results, limits, "latency")
    assert by_score is not None
    assert by_speed is not None
    assert by_score.figures["drop"] == 0
    assert by_speed.figures["speedup"] > by_score.figures["speedup"]
    assert by_speed.figures["drop_high"] <= 0.02


def test_a_point_that_surely_holds_goes_before_one_that_loses_less():
    limits = Limits(min_speedup=2.0, max_drop=0.01)
    common = {"size_mb": 20.0, "size_share": 0.2, "latency_ms": 5.0}

    def point(name: str, speedup: float, drop: float, high: float) -> Result:
        found = {"drop": drop, "drop_high": high, "speedup": speedup, "speedup_low": speedup}
        found |= common
        beyond = violations(limits, found)
        return Result(settings={"precision": name}, figures=found, beyond=beyond)

    bare, lossy = point("bare", 2.01, 0.002, 0.005), point("lossy", 2.6, 0.0098, 0.016)
    sure, spare = point("sure", 2.2, 0.004, 0.009), point("spare", 2.5, 0.005, 0.0095)
    assert chosen([bare, lossy, spare, sure], limits, "score") is sure
    assert chosen([bare, lossy, sure, spare], limits, "latency") is spare
    # Where all may miss: a tenth of the clock's noise is left to one, a fifth of its score's to two.
    two = point("two", 2.3, 0.0088, 0.0148)
    assert chosen([bare, two], limits, "score") is two
