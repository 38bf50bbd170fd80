"""Presets of INT8 by name: what error must go away for what costs time at every run.

Scales that fold into a norm or a weight cost nothing, nor does a shift that a norm's beta takes. A
norm scaled beside another (`twin`), a Mul of its own (`node`) and outlier channels in float
(`picking`) do: each is taken where it leaves no more than that part of the error; 0 never takes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """What part of a layer's error each way may leave to be taken."""

    twin: float
    node: float
    picking: float

    def scaling(self, fold: str) -> float:
        """Of scales that go where `passes.folds` says."""
        return {"twin": self.twin, "node": self.node}.get(fold, 1.0)

    def apart(self, fold: str) -> float:
        """Of outlier channels: beside several wide layers they cost more than a norm's product."""
        return self.picking * (self.twin if fold == "twin" else 1.0)


PRESETS: Mapping[str, Preset] = {
    "accuracy": Preset(twin=1.0, node=1.0, picking=0.7),
    "balanced": Preset(twin=0.35, node=0.05, picking=0.7),
    "speed": Preset(twin=0.1, node=0.0, picking=0.0),
}
