"""The pass `half`: float32 to float16 or bfloat16, where the numbers allow it."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import onnx_ir as ir
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from .contract import Contract
from .half_cast import Casting
from .half_place import Limits, place
from .infer import infer
from .kinds import Pass
from .ledger import Application, Ledger

_TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Half(Pass):
    """Casts the graph to 16 bits; inputs and outputs of the model keep their types.

    What sums squares, exponentiates or counts stays float32, and so does a node that `keep`
    names, that makes values beyond the type's range by `ranges` (greatest magnitudes by tensor,
    from calibration), or whose weights are. A lone node between others is cast with them, so that
    no two casts stand for one operator. Give ranges: ONNX Runtime's CPU computes 16-bit operators
    in float32, so that an overflow does not show there.
    """

    contract: ClassVar[Contract] = Contract("lossy", {"float32": 0.05})

    to: Literal["float16", "bfloat16"] = "float16"
    keep: tuple[str, ...] = ()
    ranges: Mapping[str, float] = Field(default_factory=dict[str, float])

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Cast, no record kept."""
        return self.apply(model, Ledger())

    def apply(self, model: ir.Model, ledger: Ledger) -> ir.passes.PassResult:
        """Cast; the record holds what was cast and what was kept, and why."""
        infer(model)
        dtype = _TYPES[self.to]
        placed = place(model.graph, Limits.of(dtype, self.ranges, frozenset(self.keep)))
        for node, reason in placed.items():
            rule = "cast" if not reason else f"kept: {reason}"
            name, site = node.name or node.op_type, node.outputs[0].name or ""
            ledger.applications.append(Application(rule, name, site, (), ()))
        lowered = [node for node, reason in placed.items() if not reason]
        if lowered:
            Casting(model, dtype, frozenset(lowered)).run()
        return ir.passes.PassResult(model, bool(lowered))
