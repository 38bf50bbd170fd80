"""What is compressed: a graph, the samples that tell what matters, and how loss is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...passes.coupling import Group
from ..int8.loss import Loss
from .stretch import Array, Feeds


@dataclass(frozen=True)
class Subject:
    """A float model and its samples: `fit` to plan on, `held_out` to judge the plan by."""

    model: Path
    fit: Feeds
    held_out: Feeds
    mask: str | None = None
    logits: tuple[str, ...] = ()
    #: Inputs that hold token ids, and the folder of the tokenizer that makes them.
    tokens: tuple[str, ...] = ()
    assets: Path | None = None
    #: Feeds to time, by `batchxsequence`.
    timed: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)

    @property
    def loss(self) -> Loss:
        """The loss at the outputs."""
        return Loss(self.logits, self.mask)


@dataclass(frozen=True)
class Level:
    """A width that a group can have: the units kept, and its consumer's weights for it."""

    units: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """A group with its levels, widest first; each with its loss and seconds, when measured."""

    group: Group
    levels: tuple[Level, ...]
    losses: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()


Widths = Mapping[str, int]
"""Consumer -> place in its levels."""

Plan = Mapping[str, tuple[int, ...]]
"""Consumer -> units that stay."""
