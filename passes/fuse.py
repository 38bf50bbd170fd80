"""The pass `fuse`: several operators become the one standard operator that they spell out.

What it leaves of attention is regular, and lowerings may rely on it. With x [batch, sequence,
hidden] and weights [hidden, heads * size], scaled once and on the query's side:

    q = Transpose(Reshape(x @ Wq + bq, [0, 0, heads, size]), [0, 2, 1, 3])
    k = Transpose(Reshape(x @ Wk + bk, [0, 0, heads, size]), [0, 2, 3, 1])
    v = Transpose(Reshape(x @ Wv + bv, [0, 0, heads, size]), [0, 2, 1, 3])
    y = Reshape(Transpose(Softmax(q @ k + mask) @ v, [0, 2, 1, 3]), [0, 0, hidden])

The scale is in Wq and bq where nothing (a rotary embedding) stands between, else one Mul of q. With
a cache, k is Transpose(Concat(past, new), [0, 1, 3, 2]). Keys and values of fewer heads are
repeated by Unsqueeze, Expand to a constant shape and Reshape. The mask, [batch, 1, 1 or sequence,
keys], is Where(seen, 0, lowest), made once for all layers; rows that see no key are cleared by
Where(none seen, 0, ...) after the second product.
"""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass

from .attention_rules import ROTARY, SHARED
from .contract import CLOSE, Contract
from .gelu_rules import GELU, SWISH
from .kinds import RulePass
from .lazy_folding import LAZY
from .merge_rules import MERGED
from .noop_rules import NOOP
from .norm_rules import DIVISION, LAYER_NORMALIZATION, RMS_NORMALIZATION
from .rules import Rule
from .scale_rules import ATTENTION_SCALE
from .shape_rules import SHAPES
from .split_rules import SPLITS
from .weight_rules import WEIGHTS

#: Every fusion by the name that a configuration gives.
RULES: dict[str, tuple[Rule, ...]] = {
    "transposed-weight": WEIGHTS,
    "constant-weight": LAZY,
    "layer-normalization": LAYER_NORMALIZATION,
    "rms-normalization": RMS_NORMALIZATION,
    "division": DIVISION,
    "split": SPLITS,
    "gelu": GELU,
    "swish": SWISH,
    "attention-scale": ATTENTION_SCALE,
    "rotary-embedding": ROTARY,
    "shared-heads": SHARED,
    "merged-linear": MERGED,
}
#: What is not applied unless asked for: merged products hide the weights that scales go into, and
#: the forms that lowerings know. Ask for them in a `fuse` of their own, after the others.
OPTIONAL = ("merged-linear",)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Fuse(RulePass):
    """Fuses by the named tables, in that order; an operator the model's opset lacks is not made."""

    contract: ClassVar[Contract] = CLOSE

    rules: tuple[str, ...] = tuple(name for name in RULES if name not in OPTIONAL)

    @field_validator("rules")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in RULES]
        if unknown:
            raise ValueError(f"no rule is called {unknown[0]!r}: one of {', '.join(RULES)}")
        return names

    def table(self) -> Sequence[Rule]:
        """The rules of the named tables, and those that tidy up what they leave."""
        return (*(item for name in self.rules for item in RULES[name]), *NOOP, *SHAPES)
