"""report.json as frozen records: a figure that was not measured is null beside a reason."""

import math
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, model_validator

SCHEMA_VERSION = 1


def _finite(value: object) -> object:
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: A measured number, or null: what is not finite becomes null too.
Figure = Annotated[float | None, BeforeValidator(_finite)]
Verdict = Literal["pass", "fail", "incomplete"]
Status = Literal["pass", "fail", "not-executed"]


class Record(BaseModel):
    """A frozen record; of each pair `figure`, `figure_reason` exactly one is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def _explained(self) -> Self:
        for name in type(self).model_fields:
            figure = name.removesuffix("_reason")
            if figure == name:
                continue
            if getattr(self, figure) is None and not getattr(self, name):
                raise ValueError(f"{figure} is null and {name} does not say why")
        return self


class Tool(Record):
    """Who wrote the report."""

    name: str = "llmdeploy"
    version: str


class Model(Record):
    """The checkpoint; `parameters` counts elements, `digest` is that of the folder."""

    checkpoint: str
    revision: str | None = None
    task: str
    architecture: str
    digest: str
    parameters: int | None = None
    parameters_reason: str | None = None


class StageParity(Record):
    """A stage's worst output beside what it came from: relative error, mean cosine."""

    max_rel: Figure = None
    cosine_mean: Figure = None
    against: str


class Stage(Record):
    """One line of the release: seconds, peak resident bytes, bytes on disk, and how right it is.

    `inputs` are the digests it was made from; `score` is the task's metric; `latency_ratio` is
    float's median over this stage's, above 1 when this one is faster.
    """

    name: str
    seconds: float
    peak_memory_bytes: int
    size_bytes: int
    fresh: bool = False
    digest: str
    inputs: dict[str, str] = {}
    parity: StageParity | None = None
    parity_reason: str | None = None
    score: Figure = None
    score_reason: str | None = None
    latency_ratio: Figure = None
    latency_ratio_reason: str | None = None


class Step(Record):
    """What one pass did; `applications` counts by rule, `max_error` is relative to its input."""

    name: str
    modified: bool
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    applications: dict[str, int] = {}
    max_error: Figure = None
    max_error_reason: str | None = None
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _unmodified(cls, data: Any) -> Any:
        """A pass that changed nothing needs no other reason for not being compared."""
        if isinstance(data, dict) and data.get("modified") is False:
            return {"max_error_reason": "the pass changed nothing", **data}
        return data


class Calibration(Record):
    """What the ranges were taken from; `tokens` leaves padding out, `digest` is of the samples."""

    samples: int
    source: str = ""
    digest: str
    texts: int | None = None
    tokens: int | None = None
    seed: int | None = None
    method: str
    notes: tuple[str, ...] = ()


class Layer(Record):
    """A weight MatMul [k, n]: INT8 or float and why, and the error that INT8 causes or would.

    `macs` are multiply-adds a token, `range` is the activation's [low, high], `snr_db` that of
    the layer's output, `error_share` its part (0 to 1) of all layers' error.
    """

    node: str
    k: int
    n: int
    macs: int
    int8: bool
    reason: str = ""
    smoothing: Figure = None
    observer: str | None = None
    range: tuple[float, float] | None = None
    snr_db: Figure = None
    error_share: Figure = None


class Quantization(Record):
    """The precision of the weight MatMuls; `int8_share` is of their multiply-adds, 0 to 1."""

    precision: str = "int8"
    int8_share: float
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()


class Engine(Record):
    """An engine that was built; `executed` is false with a reason where it only compiled."""

    backend: str
    precision: str
    size_bytes: int
    executed: bool
    reason: str | None = None
    facts: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if not self.executed and not self.reason:
            raise ValueError("an engine that was not executed needs a reason")
        return self


class OutputParity(Record):
    """One output's errors; relative ones are to the reference's scale; SNR is null when exact."""

    name: str
    max_abs: Figure = None
    mean_abs: Figure = None
    max_rel: Figure = None
    mean_rel: Figure = None
    cosine_min: Figure = None
    cosine_mean: Figure = None
    snr_db: Figure = None


class Parity(Record):
    """A comparison on real samples; `ok` is null with a reason when it could not be made here."""

    name: str
    against: str
    ok: bool | None = None
    samples: int = 0
    outputs: tuple[OutputParity, ...] = ()
    reason: str | None = None
    mend: str | None = None

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if not self.ok and not self.reason:
            raise ValueError("a comparison that failed or was not made needs a reason")
        return self


class Score(Record):
    """The task's metric on labelled data; `against_float` is the ratio to float's value.

    `interval` is the bootstrap's [low, high] of that ratio.
    """

    name: str
    metric: str
    value: Figure = None
    value_reason: str | None = None
    against_float: Figure = None
    interval: tuple[float, float] | None = None
    samples: int = 0
    data: str = ""


class Latency(Record):
    """Milliseconds a call at a shape; `ratio` is float's median over this one's."""

    name: str
    batch: int
    sequence: int
    median_ms: Figure = None
    median_ms_reason: str | None = None
    p95_ms: Figure = None
    ratio: Figure = None
    threads: int
    runs: int


class Gate(Record):
    """A limit, the value held against it, and the command that digs further."""

    name: str
    limit: float | str
    value: Figure = None
    status: Status
    reason: str | None = None
    mend: str | None = None

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if self.status != "pass" and not self.reason:
            raise ValueError(f"the gate {self.name} is {self.status} and does not say why")
        return self


class Bundle(Record):
    """A package that was made, and what its own verification in a new process said."""

    kind: str
    path: str
    sha256: str
    bytes: int
    verification: dict[str, JsonValue] | None = None
    verification_reason: str | None = None


class Environment(Record):
    """The machine and the versions the figures were measured with."""

    cpu: str
    cores: int
    memory_bytes: int
    os: str
    python: str
    packages: dict[str, str] = {}
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
    calibration: Calibration | None = None
    calibration_reason: str | None = None
    quantization: Quantization | None = None
    quantization_reason: str | None = None
    engines: tuple[Engine, ...] = ()
    parity: tuple[Parity, ...] = ()
    scores: tuple[Score, ...] = ()
    latency: tuple[Latency, ...] = ()
    gates: tuple[Gate, ...] = ()
    bundles: tuple[Bundle, ...] = ()
    environment: Environment


def judge(gates: tuple[Gate, ...], allowed: tuple[str, ...] = ()) -> Verdict:
    """`fail` when a gate failed, `incomplete` when one was not executed and is not `allowed`."""
    statuses = {gate.status for gate in gates if gate.name not in allowed or gate.status == "fail"}
    if "fail" in statuses:
        return "fail"
    return "incomplete" if "not-executed" in statuses else "pass"
