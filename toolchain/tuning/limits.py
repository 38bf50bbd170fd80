"""What a release must hold, and how far a measured point is from it."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ... import ConfigError
from ..config import Gate

#: What the clock may say on another day, as a share.
ROOM = 1.05


class Limits(BaseModel):
    """Limits of a search; None is not asked for.

    `max_latency_ms` bounds the slowest call of one row, `min_speedup` the least of all shapes in
    times float's, `max_size_mb` an engine's files, `max_memory_mb` what a process that only runs
    it holds, `max_drop` the relative loss of the score.
    """

    model_config = ConfigDict(frozen=True)

    max_latency_ms: float | None = None
    min_speedup: float | None = None
    max_size_mb: float | None = None
    max_memory_mb: float | None = None
    max_drop: float | None = None

    @property
    def asked(self) -> dict[str, float]:
        """The limits that are given, as `[gate]` calls them but for the drop."""
        return {name: value for name, value in self.model_dump().items() if value is not None}

    @property
    def fast(self) -> bool:
        """Whether speed is asked for."""
        return self.max_latency_ms is not None or self.min_speedup is not None

    @property
    def small(self) -> bool:
        """Whether fewer bytes are asked for."""
        return self.max_size_mb is not None or self.max_memory_mb is not None


@dataclass(frozen=True)
class Figure:
    """A figure that a limit is on: what it is called, which way is good, and its unit."""

    figure: str
    most: bool
    unit: str
    words: str


FIGURES: Mapping[str, Figure] = {
    "max_latency_ms": Figure("latency_ms", True, "ms", "latency"),
    "min_speedup": Figure("speedup", False, "times", "speed-up"),
    "max_size_mb": Figure("size_mb", True, "MB", "size"),
    "max_memory_mb": Figure("memory_mb", True, "MB", "memory"),
    "max_drop": Figure("drop", True, "", "drop"),
}


def limits_of(given: Mapping[str, float | None], gate: Gate) -> Limits:
    """The limits of the command line, those of `[gate]` where it names none.

    Raises:
        ConfigError: there is none, or one that nothing can be.
    """
    before = {
        "max_latency_ms": gate.max_latency_ms,
        "min_speedup": gate.min_speedup,
        "max_size_mb": gate.max_size_mb,
        "max_memory_mb": gate.max_memory_mb,
        "max_drop": gate.max_score_drop,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    bad = next((name for name, value in asked.items() if not 0 <= value < float("inf")), None)
    if bad or asked.get("max_drop", 0.0) >= 1:
        name = (bad or "max_drop").replace("_", "-")
        raise ConfigError(f"--{name} cannot be {asked[bad or 'max_drop']:g}", mend="see --help")
    made = Limits.model_validate({**before, **asked})
    if not made.asked:
        raise ConfigError(
            "no limit is given",
            mend="give --min-speedup, --max-latency, --max-size, --max-memory or --max-drop",
        )
    return made


def violations(limits: Limits, figures: Mapping[str, float | None]) -> dict[str, float]:
    """How far each measured figure is beyond its limit, as a share of it; at most 0 where it holds.

    A drop is a share already. What was not measured is not there.
    """
    found: dict[str, float] = {}
    for name, limit in limits.asked.items():
        value = figures.get(FIGURES[name].figure)
        if value is not None:
            found[name] = _beyond(name, value, limit)
    return found


def guarded(limits: Limits, figures: Mapping[str, float]) -> dict[str, float]:
    """The same of figures at their bad ends: a release measures anew, on other data and days."""
    bad = dict(figures)
    if "drop" in figures:
        bad["drop"] = max(figures["drop"], figures.get("drop_high", 0.0))
    if "speedup" in figures:
        low = figures.get("speedup_low", figures["speedup"])
        bad["speedup"] = min(figures["speedup"] / ROOM, low)
    if "latency_ms" in figures:
        bad["latency_ms"] = figures["latency_ms"] * ROOM
    return violations(limits, bad)


def doubt(limits: Limits, figures: Mapping[str, float]) -> float:
    """How far noise could take a point that fits beyond a limit, as a share of that noise.

    0 where every limit holds at the bad end, 1 where one holds by nothing.
    """
    seen, bad = violations(limits, figures), guarded(limits, figures)
    shares = (bad[name] / (bad[name] - seen[name]) for name in seen if bad[name] > 0)
    return max(shares, default=0.0)


def _beyond(name: str, value: float, limit: float) -> float:
    if name == "max_drop":
        return value - limit
    scale = limit if limit > 0 else 1.0
    return (value - limit) / scale if FIGURES[name].most else (limit - value) / scale


def worst(beyond: Mapping[str, float]) -> str:
    """The limit that is missed by most, empty where all hold."""
    missed = {name: value for name, value in beyond.items() if value > 0}
    return max(missed, key=lambda name: missed[name]) if missed else ""


def says(name: str, value: float, limit: float) -> str:
    """A missed limit in words: `speed-up 1.62 times, asked for 2`."""
    figure = FIGURES[name]
    unit = f" {figure.unit}" if figure.unit else ""
    return f"{figure.words} {value:.4g}{unit}, asked for {limit:g}"
