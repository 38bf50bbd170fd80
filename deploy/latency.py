"""Latency of several runners side by side: warmed up, interleaved, with intervals."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError

Feed = Mapping[str, NDArray[Any]]
Run = Callable[[Feed], object]
Call = Literal["faster", "slower", "within noise"]
#: The ends of an interval that holds 95 of 100.
INTERVAL = (2.5, 97.5)
#: Untimed runs at the start of a turn, and after how many seconds of them no more are needed.
SETTLING, SETTLED_S = 4, 0.05
#: How long a look at the process is, the CPU time in it that still is nothing, and when to give up.
#: A look outlasts a tick of the kernel (at most 10 ms), which is when a running thread is counted.
LOOK_S, NOTHING_S, GIVEN_UP_S = 0.012, 5e-4, 0.3


@dataclass(frozen=True)
class Timing:
    """Latency of one runner on one feed, in milliseconds.

    `*_low_ms` and `*_high_ms` bound a percentile (`low_ms` and `high_ms` the median),
    `speedup_low` and `speedup_high` the ratio of the first runner's median to this one's, all at
    95 %. `call` says whether that ratio tells. `deciles` are of the runs, from least to most.
    """

    name: str
    shape: str
    runs: int
    median_ms: float
    low_ms: float
    high_ms: float
    p90_ms: float
    p90_low_ms: float
    p90_high_ms: float
    p99_ms: float
    p99_low_ms: float
    p99_high_ms: float
    deciles: tuple[float, ...]
    speedup: float
    speedup_low: float
    speedup_high: float
    call: Call


def measure(
    runners: Mapping[str, Run],
    feeds: Mapping[str, Feed],
    *,
    rounds: int = 10,
    burst: int = 5,
    budget_s: float = 10.0,
    seed: int = 0,
) -> tuple[Timing, ...]:
    """Time every runner on every feed; the first runner is the reference of the ratios.

    A round gives each runner, in an order drawn anew, a few untimed runs and `burst` timed ones,
    once the threads of the runner before have stopped spinning (ONNX Runtime's do so for 40 ms and
    take a core from whoever is next). The untimed runs bring this one's weights back into the
    caches: a small engine is then as fast as it is alone, which is how it will be deployed. Rounds
    stop at `rounds`, or when a feed has used `budget_s` seconds and three rounds are done.

    Raises:
        ConfigError: nothing to time.
    """
    if not runners or not feeds or rounds < 1 or burst < 1:
        raise ConfigError("nothing to time", mend="give a runner, a feed, a round and a run")
    random = np.random.default_rng(seed)
    timings: list[Timing] = []
    for shape, feed in feeds.items():
        seconds = _rounds(runners, feed, rounds, burst, budget_s, random)
        first = seconds[next(iter(runners))]
        timings += [_timing(name, shape, seconds[name], first, random) for name in runners]
    return tuple(timings)


def _rounds(
    runners: Mapping[str, Run],
    feed: Feed,
    rounds: int,
    burst: int,
    budget_s: float,
    random: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    names = list(runners)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        _burst(runners[name], feed, 2)
    started = time.perf_counter()
    for done in range(rounds):
        if done >= min(3, rounds) and time.perf_counter() - started > budget_s:
            break
        for index in random.permutation(len(names)):
            _quiet()
            _settle(runners[names[index]], feed)
            seconds[names[index]] += _burst(runners[names[index]], feed, burst)
    return {name: np.array(values) for name, values in seconds.items()}


def _quiet() -> None:
    """Wait until nothing in this process computes, at most `GIVEN_UP_S` seconds."""
    started = time.perf_counter()
    while time.perf_counter() - started < GIVEN_UP_S:
        before = time.process_time()
        time.sleep(LOOK_S)
        if time.process_time() - before < NOTHING_S:
            return


def _settle(run: Run, feed: Feed) -> None:
    started = time.perf_counter()
    for _ in range(SETTLING):
        run(feed)
        if time.perf_counter() - started > SETTLED_S:
            return


def _burst(run: Run, feed: Feed, count: int) -> list[float]:
    seconds: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        run(feed)
        seconds.append(time.perf_counter() - started)
    return seconds


def _timing(
    name: str,
    shape: str,
    seconds: NDArray[np.float64],
    first: NDArray[np.float64],
    random: np.random.Generator,
) -> Timing:
    bounds = {q: _percentiles(seconds, q, random) for q in (50, 90, 99)}
    itself = seconds is first
    ratios = np.ones(1) if itself else _percentiles(first, 50, random) / bounds[50]
    slow, fast = np.percentile(ratios, INTERVAL)
    low, high = _interval(bounds[50])
    p90, p99 = _interval(bounds[90]), _interval(bounds[99])
    return Timing(
        name=name,
        shape=shape,
        runs=len(seconds),
        median_ms=_ms(np.median(seconds)),
        low_ms=low,
        high_ms=high,
        p90_ms=_ms(np.percentile(seconds, 90)),
        p90_low_ms=p90[0],
        p90_high_ms=p90[1],
        p99_ms=_ms(np.percentile(seconds, 99)),
        p99_low_ms=p99[0],
        p99_high_ms=p99[1],
        deciles=tuple(_ms(each) for each in np.percentile(seconds, range(0, 101, 10))),
        speedup=float(np.median(first) / np.median(seconds)),
        speedup_low=float(slow),
        speedup_high=float(fast),
        call="faster" if slow > 1 else "slower" if fast < 1 else "within noise",
    )


def _percentiles(
    seconds: NDArray[np.float64], q: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """A percentile of each of a thousand resamples (Efron's bootstrap)."""
    draws = random.integers(0, len(seconds), (1000, len(seconds)))
    return np.percentile(seconds[draws], q, axis=1)


def _interval(resampled: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(resampled, INTERVAL)
    return _ms(low), _ms(high)


def _ms(seconds: Any) -> float:
    return round(float(seconds) * 1e3, 4)


def cells(timings: Sequence[Timing], name: str) -> tuple[Timing, ...]:
    """The timings of one runner, in the order of the feeds."""
    return tuple(timing for timing in timings if timing.name == name)
