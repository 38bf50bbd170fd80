"""Session settings by measurement: several ways to run one engine, timed side by side."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError
from .latency import Feed, Timing, measure
from .ort_session import Settings, open_session
from .shapes import consistent

Sizes = tuple[int, int, int]
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def candidates(settings: Settings, cores: int) -> dict[str, Settings]:
    """What is tried: as asked first, then one change at a time, all threads before few."""
    counts = sorted({1, max(1, cores // 2), cores}, reverse=True)
    tried = {"as asked": settings}
    for count in counts:
        tried[f"threads={count}"] = settings.model_copy(update={"threads": count})
    for name in ("spinning", "arena", "prepacking"):
        value = not getattr(settings, name)
        tried[f"{name}={str(value).lower()}"] = settings.model_copy(update={name: value})
    return tried


def tune(
    folder: Path, settings: Settings, dims: Mapping[str, Sizes], seconds: float = 10.0
) -> tuple[Settings, tuple[Timing, ...]]:
    """The settings whose medians are the least over small and usual shapes, and the timings.

    A change is taken only where it is faster beyond noise on one shape and slower on none.

    Raises:
        ConfigError: an input has a dtype or a dimension that no feed can be made for.
    """
    tried = candidates(settings, os.cpu_count() or 1)
    (first, asked), *others = tried.items()
    base = open_session(folder / asked.file, asked)
    feeds = _feeds(base.get_inputs(), consistent(dims))
    timings: list[Timing] = []
    for name, each in others:  # two sessions at a time: weights may be large
        session = open_session(folder / each.file, each)
        pair = {first: _runner(base), name: _runner(session)}
        share = seconds / len(others) / len(feeds)
        timings += measure(pair, feeds, rounds=8, burst=3, budget_s=share)
    return tried[best(timings)], tuple(timings)


def best(timings: Sequence[Timing]) -> str:
    """The runner with the greatest speed-up of those never slower and somewhere faster."""
    found: dict[str, list[Timing]] = {}
    for timing in timings:
        found.setdefault(timing.name, []).append(timing)
    first = next(iter(found))
    better = {
        name: float(np.prod([each.speedup for each in rows]))
        for name, rows in found.items()
        if any(each.call == "faster" for each in rows)
        and not any(each.call == "slower" for each in rows)
    }
    return max(better, key=lambda name: better[name]) if better else first


def _runner(session: Any) -> Any:
    return lambda feed: session.run(None, dict(feed))


def _feeds(inputs: Sequence[Any], dims: Mapping[str, Sizes]) -> dict[str, Feed]:
    return {
        name: _feed(inputs, {key: size[index] for key, size in dims.items()})
        for name, index in (("least", 0), ("usual", 1))
    }


def _feed(inputs: Sequence[Any], sizes: Mapping[str, int]) -> Feed:
    """Ones of every input's dtype and shape: what a run costs does not depend on the words."""
    feed: dict[str, NDArray[Any]] = {}
    for each in inputs:
        shape = [size if isinstance(size, int) else sizes.get(str(size)) for size in each.shape]
        known = [size for size in shape if size is not None]
        if len(known) != len(shape) or each.type not in DTYPES:
            raise ConfigError(
                f"no feed can be made for input {each.name}, {each.type}{each.shape}",
                where="[build.options.onnxruntime] tune",
                mend="bound its dimensions in [build.profile], or set tune = false",
            )
        feed[each.name] = np.ones(known, DTYPES[each.type])
    return feed
