"""The pass `prune`: what may go and what it may cost; samples and a clock decide the rest."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import onnx_ir as ir
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Prune(Pass):
    """Removes attention heads, FFN neurons and whole blocks, and corrects what stays.

    `speedup` is met with the least loss; without it the model is made as fast as `max_drop` allows.
    `neurons` and `heads` are instead the shares of every layer to remove, 0 for none, and `layers`
    that of whole layers, the ones that cost least. `max_drop` bounds the loss of the outputs on
    held-out samples: 1 - the mean cosine with the dense model's, of logits the divergence of
    Kullback and Leibler.
    """

    speedup: Annotated[float, Field(gt=1, le=100)] | None = None
    max_drop: Annotated[float, Field(gt=0, lt=1)] = 0.05
    neurons: Annotated[float, Field(ge=0, lt=1)] | None = None
    heads: Annotated[float, Field(ge=0, lt=1)] | None = None
    layers: Annotated[float, Field(gt=0, lt=1)] | None = None
    method: Literal["second-order", "wanda", "magnitude"] = "second-order"
    #: Whether kept weights are fitted anew to the dense model's activations.
    correct: bool = True
    #: Widths that stay are multiples of so many channels.
    multiple: Annotated[int, Field(ge=1)] = 32
    #: Batch and tokens of the texts that latency is measured on; ready feeds are timed as they are.
    batch: Annotated[int, Field(ge=1)] = 1
    sequence: Annotated[int, Field(ge=1)] = 128
    #: Minutes that losses of single layers are measured for, at most.
    minutes: Annotated[float, Field(gt=0)] = 3.0

    contract: ClassVar[Contract] = Contract("lossy", {})
    #: The toolchain plans it from samples, in the stage `compress`.
    fitted: ClassVar[bool] = True
    #: Ways to ask for it that `tune` tries: of each option values, the mildest first.
    tunable: ClassVar[Mapping[str, Mapping[str, tuple[object, ...]]]] = {
        "shares": {"neurons": (0.125, 0.25, 0.375, 0.5, 0.625), "heads": (0.0, 0.25)},
        "speedup": {"speedup": (1.25, 1.5, 1.75, 2.0, 2.5), "minutes": (0.7,)},
        "layers": {"layers": (0.1, 0.2, 0.3)},
    }

    @model_validator(mode="after")
    def _one_way(self) -> "Prune":
        if self.speedup is not None and self.uniform:
            raise ValueError("speedup chooses the widths: leave neurons, heads and layers out")
        return self

    @property
    def uniform(self) -> bool:
        """Whether shares are asked for, and no latency."""
        return any(each is not None for each in (self.neurons, self.heads, self.layers))

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Refuse to work on nothing: without samples nobody knows what matters.

        Raises:
            PassError: always.
        """
        del model
        raise PassError("prune needs samples", mend="run it in a release: llmdeploy build")
