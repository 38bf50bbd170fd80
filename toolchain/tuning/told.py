"""From a search to its record: what tune.json, the page and the report show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ... import __version__
from ..report.tuning import Advised, Point, Roof, Standing, Tuning
from ..versions import ENGINE, versions
from .advice import Advice
from .front import front, shortfalls
from .hardware import Hardware
from .limits import Limits
from .result import Result
from .roofline import Call
from .space import words

NOTHING = "No point was taken, so the evaluation data was not looked at."


@dataclass(frozen=True)
class Setting:
    """What a search set out with."""

    target: str
    limits: Limits
    prefer: str
    jobs: str
    seed: int
    hardware: Hardware
    calls: tuple[Call, ...]
    advice: tuple[Advice, ...]
    tuned_on: str
    verified_on: str


def record(
    setting: Setting,
    results: Sequence[Result],
    lost: Sequence[str],
    taken: Result | None,
    why: str,
    seconds: float,
) -> Tuning:
    """The record of a search; `why` says why no point was taken."""
    best = front(results)
    return Tuning(
        version=__version__,
        target=setting.target,
        limits=setting.limits.asked,
        prefer=setting.prefer,
        tuned_on=setting.tuned_on,
        verified_on=setting.verified_on if taken else NOTHING,
        hardware=_hardware(setting.hardware),
        roofline=tuple(map(roof, setting.calls)),
        advice=tuple(Advised(**each.model_dump()) for each in setting.advice),
        points=tuple(
            _point(each, _standing(each, best, taken), setting.limits) for each in results
        ),
        lost=tuple(lost),
        chosen=words(taken.settings) if taken else None,
        chosen_reason=None if taken else why,
        seconds=round(seconds, 1),
        seed=setting.seed,
        jobs=setting.jobs,
        packages=versions((*ENGINE, "optuna", "ray")),
    )


def _hardware(found: Hardware) -> dict[str, Any]:
    return {
        "processor": f"{found.cpu}, {found.cores} cores",
        "memory_bytes": found.memory_bytes,
        "gflop_per_s": round(found.flops / 1e9, 1),
        "gb_per_s": round(found.bytes_per_s / 1e9, 2),
        "int8_gain": found.int8_gain,
        "thin_gain": found.thin_gain,
    }


def roof(call: Call) -> Roof:
    """A line of the roofline in the units people read."""
    return Roof(
        shape=call.shape,
        phase=call.phase,
        gflop=call.flops / 1e9,
        megabytes=call.bytes / 1e6,
        intensity=call.intensity,
        compute_ms=call.compute_s * 1e3,
        memory_ms=call.memory_s * 1e3,
        bound="compute" if call.bound == "compute" else "memory",
    )


def _standing(result: Result, best: Sequence[Result], taken: Result | None) -> Standing:
    if result is taken:
        return "chosen"
    if not result.whole:
        return "stopped"
    if any(result is each for each in best):
        return "front"
    return "fits" if result.fits else "misses"


def _point(result: Result, standing: Standing, limits: Limits) -> Point:
    figures = result.figures
    why = "" if result.fits else result.stopped or shortfalls(result, limits)
    return Point(
        name=words(result.settings),
        settings=dict(result.settings),
        standing=standing,
        reason=why,
        drop=figures.get("drop"),
        score=figures.get("score"),
        speedup=figures.get("speedup"),
        latency_ms=figures.get("latency_ms"),
        size_mb=figures.get("size_mb"),
        memory_mb=figures.get("memory_mb"),
        seconds=result.seconds,
        host=result.host,
        load=round(result.load, 2),
    )
