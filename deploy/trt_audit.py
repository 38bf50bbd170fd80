"""What precision was asked for against what was built, as the size of the built weights tells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from .graph import made_by

Verdict = Literal["as asked", "not as asked", "cannot tell"]
#: Weights below this say nothing: alignment and folding move the total by some kilobytes.
LEAST_BYTES = 16_384


@dataclass(frozen=True)
class Audit:
    """Bytes of weights: as the graph stores them, were they float, and as they were built."""

    asked: str
    stored_bytes: int
    float_bytes: int
    built_bytes: int | None
    verdict: Verdict


def audit(model: Path, built_bytes: int | None) -> Audit:
    """Compare an engine's weight memory with its graph's quantised and float sizes.

    The verdict is "as asked" below the middle of the two, where the engine holds the weights as
    the graph does, and "cannot tell" where nothing is quantised or the two lie too near.
    """
    stored, wide, kinds = _sizes(ir.load(model))
    asked = ", ".join(sorted(kinds)) or "float"
    if built_bytes is None or wide - stored < LEAST_BYTES:
        return Audit(asked, stored, wide, built_bytes, "cannot tell")
    verdict: Verdict = "as asked" if built_bytes < (stored + wide) / 2 else "not as asked"
    return Audit(asked, stored, wide, built_bytes, verdict)


def _sizes(model: ir.Model) -> tuple[int, int, set[str]]:
    """Bytes of all constants, the same with quantised ones in the dtype of their scales, kinds."""
    stored, wide, kinds = 0, 0, set[str]()
    for value in model.graph.initializers.values():
        if value.const_value is None:
            continue
        size = value.const_value.nbytes
        factor = _width(value)
        stored += size
        wide += round(size * factor)
        if factor > 1:
            kinds.add(value.const_value.dtype.name)
    return stored, wide, kinds


def _width(value: ir.Value) -> float:
    """How many times as large a constant is once it is dequantised, 1 where it is not."""
    tensor = value.const_value
    if tensor is None or tensor.dtype.itemsize > 1:
        return 1.0
    for use in value.uses():
        node = made_by(use.node.outputs[0], "DequantizeLinear")
        if node is not None and use.idx == 0:
            scale: Any = node.inputs[1]
            kind = scale.dtype or ir.DataType.FLOAT
            return kind.itemsize / tensor.dtype.itemsize
    return 1.0
