"""How a release was made: checkpoint, stages, passes, calibration, precision, engines."""

from typing import Any, Self

from pydantic import Field, JsonValue, model_validator

from .ground import Figure, Record


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
    inputs: dict[str, str] = Field(default_factory=dict)
    parity: StageParity | None = None
    parity_reason: str | None = None
    score: Figure = None
    score_reason: str | None = None
    latency_ratio: Figure = None
    latency_ratio_reason: str | None = None


class Failure(Record):
    """A rewrite that was found to change the numbers or break the graph, and was not kept."""

    rule: str = ""
    node: str = ""
    tensor: str = ""
    error: Figure = None
    allowed: Figure = None
    reason: str = ""


class Step(Record):
    """What one pass did; `applications` counts by rule, `max_error` is relative to its input.

    `proved` applications were compared each on its own part of the graph, `local_error` is the
    worst of them; `failures` were found and not kept.
    """

    name: str
    modified: bool
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    applications: dict[str, int] = Field(default_factory=dict)
    max_error: Figure = None
    max_error_reason: str | None = None
    seconds: float
    proved: int = 0
    local_error: Figure = None
    failures: tuple[Failure, ...] = ()

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

    `bits` are those of a weight that alone was rounded; `int8` then says whether it was. `format`
    is what it and its activation are where both are rounded.
    `macs` are multiply-adds a token, `range` is the activation's [low, high], `snr_db` that of
    the layer's output, `error_share` its part (0 to 1) of all layers' error. `histogram` counts
    |x| of the activation as it comes, in bins of one width; `seen` are its extremes.
    """

    node: str
    k: int
    n: int
    macs: int
    int8: bool
    bits: int | None = None
    format: str = "INT8"
    reason: str = ""
    smoothing: Figure = None
    observer: str | None = None
    range: tuple[float, float] | None = None
    snr_db: Figure = None
    error_share: Figure = None
    histogram: tuple[int, ...] = ()
    histogram_width: float = 0.0
    seen: tuple[float, float] | None = None


class Mixture(Record):
    """A share of multiply-adds in INT8, and the outputs' loss against float's on held-out samples.

    `drop` is 1 - the mean cosine, of logits the divergence; what harms most is in float first.
    """

    int8_share: float
    drop: float


class Quantization(Record):
    """The precision of the weight MatMuls; `int8_share` is of their multiply-adds, 0 to 1.

    Where weights alone are rounded it is the share whose weights are. `curve` is what other shares
    would cost, the largest first.
    """

    precision: str = "int8"
    int8_share: float
    layers: tuple[Layer, ...] = ()
    curve: tuple[Mixture, ...] = ()
    notes: tuple[str, ...] = ()


class Cache(Record):
    """What a decoder keeps of a token, in bytes, as int8 and as it was in float.

    `drop` is what int8 costs at the outputs on held-out samples: 1 - the mean cosine, of logits the
    divergence. `snr_db` is the least of any tensor, `saturated` the greatest share beyond the last
    level; `left_alone` names what stays float, and why.
    """

    bytes_per_token: int
    bytes_per_token_float: int
    drop: Figure = None
    drop_reason: str | None = None
    snr_db: float
    saturated: float
    left_alone: dict[str, str] = Field(default_factory=dict)


class Engine(Record):
    """An engine that was built; `executed` is false with a reason where it only compiled."""

    backend: str
    precision: str
    size_bytes: int
    executed: bool
    reason: str | None = None
    facts: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if not self.executed and not self.reason:
            raise ValueError("an engine that was not executed needs a reason")
        return self
