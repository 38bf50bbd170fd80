"""What of a float graph was taken away, as records: by layer, and what that costs and saves."""

from typing import Literal

from pydantic import Field

from .ground import Figure, Record

Kind = Literal["units", "rank", "zeros", "tokens", "weights"]


class Taken(Record):
    """What one layer lost: `before` and `after` count what `of` says.

    Units are heads, neurons or whole layers; a rank is of a weight written as two thin ones
    (`before` is the least of its sides); zeros are the share of a weight that is left. `error` is
    the layer's own, relative to its output's power, before later layers make up for it.
    """

    node: str
    by: str
    kind: Kind
    of: str
    before: float
    after: float
    error: Figure = None


class Compression(Record):
    """The stage `compress`: losses are of the outputs on held-out samples, against the dense model.

    `planned_loss` is what was left after planning, before layers were corrected in order,
    `loss` that of the whole stage. `latency_ratio` is the dense model's time over this one's on
    one thread, as measured while planning. Multiply-adds are a token's; they are reported, and
    were not what was aimed at.
    """

    loss: float
    planned_loss: Figure = None
    planned_loss_reason: str | None = None
    latency_ratio: Figure = None
    latency_ratio_reason: str | None = None
    macs_before: int | None = None
    macs_after: int | None = None
    layers: tuple[Taken, ...] = ()
    left_alone: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
