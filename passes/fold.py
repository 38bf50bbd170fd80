"""The pass `fold`: what does not depend on the input is computed now."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from .contract import CLOSE, Contract
from .duplicates import same_as_earlier
from .expand_rules import EXPANDS
from .facts import SMALL
from .folding import GROWTH, constant_result
from .kinds import RulePass
from .noop_rules import NOOP
from .rules import Rule
from .shape_rules import SHAPES


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Fold(RulePass):
    """Folds constants and shape arithmetic, and merges what only moves elements.

    Constants up to `read` elements are looked into and results up to `growth` elements kept;
    weights are never read.
    """

    contract: ClassVar[Contract] = CLOSE

    read: int = Field(default=SMALL, ge=1)
    growth: int = Field(default=GROWTH, ge=1)

    def table(self) -> Sequence[Rule]:
        """Constants first: they make the others' facts."""
        folded = constant_result(self.read, self.growth)
        return (folded, *NOOP, *SHAPES, *EXPANDS, same_as_earlier())
