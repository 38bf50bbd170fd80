"""The pass `sparsify`: weights set to zero, two of four or a share; samples say which."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import onnx_ir as ir
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Sparsify(Pass):
    """Sets weights of MatMuls to zero, layer by layer, in the pattern that sparse kernels read.

    `2:4` leaves two of each four inputs of an output, what TensorRT's `sparse-weights` takes;
    `unstructured` takes the share `ratio`. No kernel of ONNX Runtime's CPU is faster for either.
    `max_drop` bounds the loss of the outputs on held-out samples.
    """

    pattern: Literal["2:4", "unstructured"] = "2:4"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    method: Literal["sparsegpt", "wanda", "magnitude"] = "sparsegpt"
    max_drop: Annotated[float, Field(gt=0)] = 0.1

    contract: ClassVar[Contract] = Contract("lossy", {})
    #: The toolchain plans it from samples, in the stage `compress`.
    fitted: ClassVar[bool] = True
    #: Ways to ask for it that `tune` tries: of each option values, the mildest first.
    tunable: ClassVar[Mapping[str, Mapping[str, tuple[object, ...]]]] = {
        "2:4": {"pattern": ("2:4",)}
    }
    #: Backends whose kernels gain by it; where it is not stated, all may.
    kernels: ClassVar[frozenset[str]] = frozenset({"tensorrt", "tensorrt-rtx"})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Refuse to work on nothing: without samples nobody knows what matters.

        Raises:
            PassError: always.
        """
        del model
        raise PassError("sparsify needs samples", mend="run it in a release: llmdeploy build")
