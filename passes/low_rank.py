"""The pass `low-rank`: how many parameters may go into thin factors; samples say where."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import onnx_ir as ir
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class LowRank(Pass):
    """Writes weights of MatMuls as products of two thin ones, `ratio` of their parameters fewer.

    The rank of each is chosen by what it loses at its layer's outputs, all under the one budget;
    a weight whose thin pair would be larger stays whole. `whitened` is the SVD that is best for
    the inputs seen (SVD-LLM), `qr` a pivoted QR of the same, `svd` the weights alone. `max_drop`
    bounds the loss of the outputs on held-out samples.
    """

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.2
    method: Literal["whitened", "qr", "svd"] = "whitened"
    #: Ranks are multiples of so many.
    multiple: Annotated[int, Field(ge=1)] = 8
    max_drop: Annotated[float, Field(gt=0)] = 0.1

    contract: ClassVar[Contract] = Contract("lossy", {})
    #: The toolchain plans it from samples, in the stage `compress`.
    fitted: ClassVar[bool] = True
    #: Ways to ask for it that `tune` tries: of each option values, the mildest first.
    tunable: ClassVar[Mapping[str, Mapping[str, tuple[object, ...]]]] = {
        "ratio": {"ratio": (0.1, 0.2, 0.3)}
    }

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Refuse to work on nothing: without samples nobody knows what matters.

        Raises:
            PassError: always.
        """
        del model
        raise PassError("low-rank needs samples", mend="run it in a release: llmdeploy build")
