"""What shows that a release is right: comparisons, scores, latencies, gates, bundles."""

from typing import Literal, Self

from pydantic import JsonValue, model_validator

from .ground import Figure, Record

Status = Literal["pass", "fail", "not-executed"]


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
    """A limit, the value held against it, and the command that digs further.

    `bound` says on which side of the limit is right; `allowed` gates may go unexecuted.
    """

    name: str
    limit: float | str
    bound: Literal["min", "max"] | None = None
    value: Figure = None
    status: Status
    allowed: bool = False
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
