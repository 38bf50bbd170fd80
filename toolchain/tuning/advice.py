"""What is worth trying, by rules that say why: the size of the search before its first trial."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from ...deploy.backend import Backend
from .. import registry
from ..config import CALIBRATED, WEIGHT_ONLY, Config
from .hardware import Hardware
from .limits import Limits
from .roofline import Call, Shape
from .space import Space, space_of, tunable

#: A gain below this is noise, or not worth what it may cost.
WORTH = 1.1
#: Bytes that INT8 of all weights takes off at most: beyond that only fewer bits or weights help.
INT8_SHARE = 0.25


class Advice(BaseModel):
    """Whether something is tried, and why."""

    model_config = ConfigDict(frozen=True)

    what: str
    tried: bool
    why: str


@dataclass(frozen=True)
class Facts:
    """All that the rules go by."""

    shape: Shape
    calls: tuple[Call, ...]
    hardware: Hardware
    limits: Limits
    config: Config
    target: str
    backend: Backend
    samples: bool

    @property
    def memory_bound(self) -> float:
        """The share of the calls that wait for weights."""
        bound = [call.bound == "memory" for call in self.calls]
        return sum(bound) / len(bound) if bound else 0.0

    @property
    def least_size(self) -> float:
        """Megabytes asked for, as a share of the float weights; 1 where none are."""
        asked = self.limits.max_size_mb
        return min(1.0, asked * 1e6 / self.shape.weight_bytes) if asked else 1.0


def advise(facts: Facts) -> tuple[Advice, ...]:
    """The rules, in order: precisions, passes, threads."""
    return (*_precisions(facts), *_passes(facts), _threads(facts))


def _precisions(facts: Facts) -> Iterator[Advice]:
    for name in ("fp32", "int8", "w8", "int4", "fp16", "bf16"):
        if name not in facts.backend.precisions:
            yield Advice(what=name, tried=False, why=f"{facts.target} does not build it")
        elif facts.config.gate.min_int8_share is not None and name != "int8":
            yield Advice(what=name, tried=False, why="[gate] min-int8-share asks for int8")
        else:
            tried, why = _RULES[name](facts)
            yield Advice(what=name, tried=tried, why=why)


def _float(facts: Facts) -> tuple[bool, str]:
    need = facts.limits.min_speedup
    gained = [name for name in tunable() if name != "sparsify"]
    why = "float weights, with what passes take away" if gained else "the reference"
    return True, f"{why}; {need:g} times float's speed is asked for" if need else why


def _int8(facts: Facts) -> tuple[bool, str]:
    gain = facts.hardware.int8_gain
    if not facts.samples:
        return False, "it needs calibration samples, and none are named"
    smaller = facts.least_size < 1
    words = f"the same MatMul is {gain:.1f} times as fast in INT8 here" if gain else "not probed"
    share = 1 - facts.memory_bound
    words += f", {share:.0%} of the calls wait for multiplying"
    fast = bool(gain and gain >= WORTH)
    return fast or smaller or not facts.limits.fast, words


def _weights(facts: Facts) -> tuple[bool, str]:
    bound = facts.memory_bound
    if bound > 0:
        return True, f"{bound:.0%} of the calls wait for weights: fewer bits are fewer bytes"
    if facts.least_size < INT8_SHARE + 0.1:
        return True, f"{facts.least_size:.0%} of the float weights are asked for: few bits needed"
    return False, "no call waits for weights: rounding them alone makes nothing faster"


def _half(facts: Facts) -> tuple[bool, str]:
    if facts.target == "onnxruntime":
        return False, "its CPU kernels compute fp16 as float32, with casts: INT8 is smaller, faster"
    return True, "half the bytes and tensor cores, nearly without loss"


def _brain(facts: Facts) -> tuple[bool, str]:
    del facts
    return False, "no runtime of a CPU computes it, so no trial could be scored beside float"


_RULES: dict[str, Any] = {
    "fp32": _float,
    "int8": _int8,
    "w8": _weights,
    "int4": _weights,
    "fp16": _half,
    "bf16": _brain,
}


def _passes(facts: Facts) -> Iterator[Advice]:
    for name in tunable():
        part = registry.find("passes", name)
        kernels: frozenset[str] = getattr(part, "kernels", frozenset({facts.target}))
        tried, why = True, "offered with options to try"
        if not facts.samples:
            tried, why = False, "it needs calibration samples, and none are named"
        elif facts.target not in kernels:
            tried, why = False, f"no kernel of {facts.target} is faster by it, nor a file smaller"
        elif name == "prune":
            tried, why = _prune(facts)
        elif name == "low-rank":
            tried, why = _low_rank(facts)
        elif name == "vocabulary":
            tried, why = facts.limits.small, "tokens that samples never have are bytes, not time"
        yield Advice(what=name, tried=tried, why=why)


def _prune(facts: Facts) -> tuple[bool, str]:
    if not (facts.limits.fast or facts.limits.small):
        return False, "neither speed nor size is asked for, and it costs score"
    cache = ", and the cache with the heads" if facts.shape.cached else ""
    return True, f"multiply-adds and weights fall with the widths{cache}; chosen by measured loss"


def _low_rank(facts: Facts) -> tuple[bool, str]:
    gain = facts.hardware.thin_gain or 0.0
    words = f"a thin pair with a quarter fewer parameters runs {gain:.2f} times as fast as one"
    if gain >= WORTH:
        return True, f"{words} MatMul here"
    if facts.memory_bound > 0 or facts.least_size < INT8_SHARE + 0.1:
        return True, f"{words} MatMul here, but fewer bytes are needed"
    return False, f"{words} MatMul here, at more loss than pruning"


def _threads(facts: Facts) -> Advice:
    counts = threads_of(facts)
    if len(counts) < 2:
        return Advice(what="threads", tried=False, why=_no_threads(facts))
    told = ", ".join("all" if each == 0 else str(each) for each in counts)
    why = f"{told}: small calls lose by waiting for threads; speed is also held to float's own"
    return Advice(what="threads", tried=True, why=why)


def _no_threads(facts: Facts) -> str:
    if "threads" in facts.config.build.options.get(facts.target, {}):
        return "the configuration sets them"
    return "the target has no such option, or one core"


def threads_of(facts: Facts) -> tuple[int, ...]:
    """Counts of threads worth trying, 0 for the target's own choice."""
    accepts: Any = getattr(facts.backend, "accepts", None)
    known = accepts is not None and "threads" in accepts.model_fields
    if not known or "threads" in facts.config.build.options.get(facts.target, {}):
        return (0,)
    halves = [facts.hardware.cores // 2**power for power in range(1, 8)]
    return (0, *dict.fromkeys(count for count in halves if count >= 1))


def space(facts: Facts, advice: Sequence[Advice]) -> Space:
    """The space that the rules leave."""
    tried = [each.what for each in advice if each.tried]
    precisions = [name for name in tried if name in _RULES]
    passes = [name for name in tried if name in tunable()]
    threads = threads_of(facts) if "threads" in tried else (0,)
    shape = facts.shape
    heads = WEIGHT_ONLY if shape.cached else CALIBRATED if shape.headed else ()
    return space_of(precisions, passes, threads, heads=heads)


def first(facts: Facts, whole: Space) -> list[dict[str, Any]]:
    """The points that the rules would try, in order: what costs least score first, then speed."""
    order = next(knob.values for knob in whole.knobs if knob.name == "precision")
    if facts.memory_bound > 0.5:
        order = sorted(order, key=lambda name: name not in WEIGHT_ONLY)
    elif "int8" in order:
        order = sorted(order, key=lambda name: name != "int8")
    # without a cache a head reads every token: where there is one it is much of the work
    rounded = {} if facts.shape.cached else {"precision.head": True}
    points = [whole.whole({"precision": p, **more}) for p in order for more in ({}, rounded)]
    best = order[0]
    for knob in whole.knobs:
        for way in knob.values[1:] if knob.name in whole.passes() else ():
            options = [each for each in whole.knobs if each.of == knob.name and way in each.where]
            for share in (0.3, 0.6):
                at = {e.name: e.values[round(share * (len(e.values) - 1))] for e in options}
                points.append(whole.whole({"precision": best, **rounded, knob.name: way, **at}))
    unique: list[dict[str, Any]] = []
    for point in points:
        if point not in unique and point != whole.whole({"precision": "fp32"}):
            unique.append(point)
    return unique
