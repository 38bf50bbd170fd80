import time

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.latency import Feed, cells, measure

FEEDS = {"1x8": {"x": np.ones((1, 8))}, "2x8": {"x": np.ones((2, 8))}}


def test_every_runner_is_timed_on_every_feed_in_turn() -> None:
    calls: list[str] = []
    runners = {name: lambda feed, name=name: calls.append(name) for name in ("float", "int8")}
    timings = measure(runners, FEEDS, rounds=4, burst=3)
    assert [(each.name, each.shape) for each in timings] == [
        ("float", "1x8"), ("int8", "1x8"), ("float", "2x8"), ("int8", "2x8"),
    ]  # fmt: skip
    assert all(each.runs == 12 for each in timings)
    # Two warm-ups, then a round: one untimed run and three timed ones, of each.
    assert len(calls) == 2 * 2 * (2 + 4 * (1 + 3))
    assert len(cells(timings, "int8")) == 2


def test_a_runner_that_does_twice_the_work_is_slower() -> None:
    def busy(seconds: float):
        def run(_: Feed) -> None:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass

        return run

    runners = {"one": busy(0.002), "two": busy(0.004)}
    first, second = measure(runners, {"1x8": FEEDS["1x8"]}, rounds=6)
    assert first.speedup == 1.0
    assert first.call == "within noise"
    assert 0.2 < second.speedup < 0.8
    assert second.call == "slower"
    assert second.low_ms <= second.median_ms <= second.high_ms <= second.p99_ms


def test_the_budget_ends_the_rounds() -> None:
    runner = {"slow": lambda _: time.sleep(0.01)}
    (timing,) = measure(runner, {"a": {}}, rounds=1000, burst=2, budget_s=0.1)
    assert 6 <= timing.runs < 100


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ConfigError):
        measure({}, FEEDS)
