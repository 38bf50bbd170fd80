from collections.abc import Callable

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy import latency
from llmdeploy.deploy.latency import Feed, cells, measure

FEEDS = {"1x8": {"x": np.ones((1, 8))}, "2x8": {"x": np.ones((2, 8))}}


class Clock:
    """Time that passes only while a runner works, or `spinning` seconds after it."""

    def __init__(self) -> None:
        self.now = self.used = 0.0
        self.calls: list[str] = []
        self.spinning = self.left = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.used

    def sleep(self, seconds: float) -> None:
        spent = min(seconds, self.left)
        self.now, self.used, self.left = self.now + spent, self.used + spent, self.left - spent

    def runner(self, name: str, *seconds: float) -> Callable[[Feed], None]:
        """A runner that takes these seconds in turn."""

        def run(_: Feed) -> None:
            if self.calls and self.calls[-1] != name:
                self.now += self.left  # the last one's threads still hold a core
            self.now += seconds[self.calls.count(name) % len(seconds)]
            self.left = self.spinning
            self.calls.append(name)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(latency, "time", made)
    return made


def test_every_runner_is_timed_on_every_feed_in_turn(clock: Clock) -> None:
    runners = {name: clock.runner(name, 0.001) for name in ("float", "int8")}
    timings = measure(runners, FEEDS, rounds=4, burst=3)
    shapes = [("float", "1x8"), ("int8", "1x8"), ("float", "2x8"), ("int8", "2x8")]
    assert [(each.name, each.shape) for each in timings] == shapes
    assert all(each.runs == 12 for each in timings)
    # Two warm-ups, then a round: four untimed runs and three timed ones, of each.
    assert len(clock.calls) == 2 * 2 * (2 + 4 * (4 + 3))
    # Interleaved: neither runs all its rounds before the other.
    assert clock.calls.index("int8", 4) < 4 + 2 * (4 + 3)
    assert len(cells(timings, "int8")) == 2


def test_figures_are_those_of_the_clock(clock: Clock) -> None:
    runners = {"one": clock.runner("one", 0.002), "two": clock.runner("two", 0.004)}
    first, second = measure(runners, {"1x8": FEEDS["1x8"]}, rounds=6)
    assert (first.median_ms, first.speedup, first.call) == (2.0, 1.0, "within noise")
    assert (second.median_ms, second.p99_ms, second.call) == (4.0, 4.0, "slower")
    assert second.speedup == second.speedup_low == second.speedup_high == pytest.approx(0.5)


def test_a_difference_within_noise_is_not_called(clock: Clock) -> None:
    noisy = (0.001, 0.009, 0.002, 0.007, 0.003, 0.005, 0.004)
    runners = {"one": clock.runner("one", *noisy), "two": clock.runner("two", *noisy[::-1])}
    _, second = measure(runners, {"1x8": FEEDS["1x8"]}, rounds=6)
    assert second.call == "within noise"
    assert second.low_ms <= second.median_ms <= second.high_ms <= second.p99_ms


def test_a_runner_starts_when_the_threads_of_the_one_before_are_still(clock: Clock) -> None:
    clock.spinning = 0.04
    turns: list[float] = []
    inner = clock.runner("two", 0.001)

    def two(feed: Feed) -> None:
        if clock.calls[-1] != "two":
            turns.append(clock.left)
        inner(feed)

    measure({"one": clock.runner("one", 0.001), "two": two}, {"1x8": FEEDS["1x8"]}, rounds=6)
    after_the_warm_up = turns[1:]
    assert after_the_warm_up
    assert max(after_the_warm_up) < 1e-9


def test_a_process_that_never_rests_is_timed_nonetheless(clock: Clock) -> None:
    clock.spinning = 1e9
    (timing,) = measure({"one": clock.runner("one", 0.001)}, {"1x8": FEEDS["1x8"]}, rounds=2)
    assert timing.runs == 10


def test_the_budget_ends_the_rounds(clock: Clock) -> None:
    (timing,) = measure(
        {"slow": clock.runner("slow", 0.06)}, {"a": {}}, rounds=99, burst=2, budget_s=0.6
    )
    # One untimed run settles what is slow: a round is three, 0.18 s, and the fourth ends too late.
    assert timing.runs == 8


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ConfigError):
        measure({}, FEEDS)
