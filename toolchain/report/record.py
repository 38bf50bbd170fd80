"""report.json as frozen records: a figure that was not measured is null beside a reason."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import Field

from .compression import Compression
from .ground import Record
from .making import Cache, Calibration, Engine, Model, Quantization, Stage, Step
from .proof import Bundle, Footprint, Gate, Latency, Parity, Score
from .tuning import Tuning

SCHEMA_VERSION = 1
Verdict = Literal["pass", "fail", "incomplete"]


class Tool(Record):
    """Who wrote the report."""

    name: str = "llmdeploy"
    version: str


class Environment(Record):
    """The machine and the versions the figures were measured with."""

    cpu: str
    cores: int
    memory_bytes: int
    os: str
    python: str
    packages: dict[str, str] = Field(default_factory=dict)
    threads: int
    seed: int


class Report(Record):
    """The whole of report.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    tool: Tool
    created: datetime
    verdict: Verdict
    model: Model
    stages: tuple[Stage, ...] = ()
    passes: tuple[Step, ...] = ()
    compression: Compression | None = None
    calibration: Calibration | None = None
    calibration_reason: str | None = None
    quantization: Quantization | None = None
    quantization_reason: str | None = None
    cache: Cache | None = None
    engines: tuple[Engine, ...] = ()
    parity: tuple[Parity, ...] = ()
    scores: tuple[Score, ...] = ()
    latency: tuple[Latency, ...] = ()
    footprints: tuple[Footprint, ...] = ()
    gates: tuple[Gate, ...] = ()
    bundles: tuple[Bundle, ...] = ()
    tuning: Tuning | None = None
    environment: Environment


def judge(gates: Iterable[Gate]) -> Verdict:
    """`fail` when a gate failed, `incomplete` when one neither was executed nor is `allowed`."""
    statuses = {gate.status for gate in gates if gate.status == "fail" or not gate.allowed}
    if "fail" in statuses:
        return "fail"
    return "incomplete" if "not-executed" in statuses else "pass"
