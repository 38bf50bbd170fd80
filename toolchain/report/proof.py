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


class Agreement(Record):
    """Of an output that is logits, whether both sides decide alike at each place.

    `argmax` and `top_k` are shares of places and of the k likeliest; `kl_*` are in nats.
    """

    name: str
    places: int
    argmax: Figure = None
    top_k: Figure = None
    k: int
    kl_mean: Figure = None
    kl_max: Figure = None


class Located(Record):
    """Where a comparison that failed begins: the first tensor to part, its node and its pass."""

    tensor: str = ""
    node: str = ""
    by: str = ""
    error: Figure = None
    reason: str


class Parity(Record):
    """A comparison on real samples; `ok` is null with a reason when it could not be made here."""

    name: str
    against: str
    ok: bool | None = None
    samples: int = 0
    outputs: tuple[OutputParity, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    located: Located | None = None
    inputs: str = ""
    reason: str | None = None
    mend: str | None = None

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if not self.ok and not self.reason:
            raise ValueError("a comparison that failed or was not made needs a reason")
        return self


class Score(Record):
    """The task's metric on labelled data; `against_float` is the ratio to float's value.

    `interval` is the bootstrap's [low, high] of that ratio. `prefix_agreement` is the share of
    what float writes that is the same from its start on, where the metric is of written texts.
    """

    name: str
    metric: str
    value: Figure = None
    value_reason: str | None = None
    against_float: Figure = None
    interval: tuple[float, float] | None = None
    prefix_agreement: Figure = None
    samples: int = 0
    data: str = ""


class Latency(Record):
    """Milliseconds a call at a shape; `ratio` is float's median over this one's.

    `low_ms` and `high_ms` bound the median at 95 %; `deciles` are of the calls, least to most;
    `call` says whether the ratio tells.
    """

    name: str
    batch: int
    sequence: int
    median_ms: Figure = None
    median_ms_reason: str | None = None
    low_ms: Figure = None
    high_ms: Figure = None
    p90_ms: Figure = None
    p99_ms: Figure = None
    deciles: tuple[float, ...] = ()
    ratio: Figure = None
    call: Literal["faster", "slower", "within noise"] | None = None
    threads: int
    runs: int


class Footprint(Record):
    """An engine in a process of its own: milliseconds to open it and to its first answer, and the
    most bytes resident; `before_bytes` of them were there before it was opened.
    """

    name: str
    open_ms: Figure = None
    first_ms: Figure = None
    peak_bytes: int
    before_bytes: int
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
