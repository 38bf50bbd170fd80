"""What a search measured, as records: limits, advice, points, and the one that was taken."""

from typing import Literal

from pydantic import Field, JsonValue

from .ground import Figure, Record

Standing = Literal["chosen", "front", "fits", "misses", "stopped"]


class Roof(Record):
    """A line of the roofline: operations and bytes of a call, milliseconds it takes at least."""

    shape: str
    phase: str = ""
    gflop: float
    megabytes: float
    intensity: float
    compute_ms: float
    memory_ms: float
    bound: Literal["compute", "memory"]


class Advised(Record):
    """Whether something was tried, and why."""

    what: str
    tried: bool
    why: str


class Point(Record):
    """One trial; `drop` is the score's relative loss on tuning data, `speedup` the least of all
    shapes. What a stopped trial did not measure is null, and `reason` says why it was stopped.
    """

    name: str
    settings: dict[str, JsonValue]
    standing: Standing
    reason: str = ""
    drop: Figure = None
    score: Figure = None
    speedup: Figure = None
    latency_ms: Figure = None
    size_mb: Figure = None
    memory_mb: Figure = None
    seconds: float
    host: str = ""
    load: float = 0.0


class Tuning(Record):
    """The whole of tune.json.

    `tuned_on` says what trials were scored on, `verified_on` what the taken point was held
    against afterwards; `configuration` is the file that makes it again, `engine` the digest of
    the engine that it made here.
    """

    schema_version: Literal[1] = 1
    version: str
    target: str
    limits: dict[str, float]
    prefer: str
    tuned_on: str
    verified_on: str
    hardware: dict[str, JsonValue]
    roofline: tuple[Roof, ...] = ()
    advice: tuple[Advised, ...] = ()
    points: tuple[Point, ...] = ()
    lost: tuple[str, ...] = ()
    chosen: str | None = None
    chosen_reason: str | None = None
    configuration: str = ""
    engine: str = ""
    seconds: float
    seed: int
    jobs: str
    packages: dict[str, str] = Field(default_factory=dict)
