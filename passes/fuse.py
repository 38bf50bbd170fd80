"""The pass `fuse`: several operators become the one standard operator that they spell out."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass

from .contract import CLOSE, Contract
from .gelu_rules import GELU
from .kinds import RulePass
from .norm_rules import DIVISION, LAYER_NORMALIZATION, RMS_NORMALIZATION
from .rules import Rule
from .scale_rules import ATTENTION_SCALE
from .split_rules import SPLITS
from .weight_rules import WEIGHTS

#: Every fusion by the name that a configuration gives.
RULES: dict[str, tuple[Rule, ...]] = {
    "transposed-weight": WEIGHTS,
    "layer-normalization": LAYER_NORMALIZATION,
    "rms-normalization": RMS_NORMALIZATION,
    "division": DIVISION,
    "split": SPLITS,
    "gelu": GELU,
    "attention-scale": ATTENTION_SCALE,
}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Fuse(RulePass):
    """Fuses by the named tables, in that order; an operator the model's opset lacks is not made."""

    contract: ClassVar[Contract] = CLOSE

    rules: tuple[str, ...] = tuple(RULES)

    @field_validator("rules")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in RULES]
        if unknown:
            raise ValueError(f"no rule is called {unknown[0]!r}: one of {', '.join(RULES)}")
        return names

    def table(self) -> Sequence[Rule]:
        """The rules of the named tables."""
        return tuple(item for name in self.rules for item in RULES[name])
