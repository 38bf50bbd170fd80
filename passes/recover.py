"""The pass `recover`: how long and how a compressed model is trained to be like the dense one."""

from typing import Annotated, ClassVar

import onnx_ir as ir
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Recover(Pass):
    """Trains the weights that are left to give the dense model's outputs again (distillation).

    No labels: the texts of `[calibration]` and the dense model's own answers. It needs torch, takes
    a GPU where there is one, goes on where it was killed, and puts the weights back as they were
    where held-out samples do not get better. Zeros of `sparsify` stay zeros. `steps` bounds it
    besides the clock, and then the same seed gives the same weights.
    """

    minutes: Annotated[float, Field(gt=0)] = 5.0
    steps: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    seed: Annotated[int, Field(ge=0)] = 0
    max_drop: Annotated[float, Field(gt=0)] = 1.0

    contract: ClassVar[Contract] = Contract("lossy", {})
    #: The toolchain trains on samples, in the stage `compress`.
    fitted: ClassVar[bool] = True

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Refuse to work on nothing: without samples and the dense model there is nothing to learn.

        Raises:
            PassError: always.
        """
        del model
        raise PassError("recover needs samples", mend="run it in a release: llmdeploy build")
