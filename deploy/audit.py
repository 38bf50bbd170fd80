"""What precision was asked for against what was built, as the size of the built weights tells."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from .graph import integer

Verdict = Literal["as asked", "not as asked", "cannot tell"]
#: Weights below this say nothing: alignment and folding move the total by some kilobytes.
LEAST_BYTES = 16_384
#: An engine of a float32 graph with less than this share of its bytes is not told by them.
WHOLE = 0.75
#: Operators that multiply by weights, as ONNX Runtime names their kernels.
KERNELS = ("MatMul", "Gemm", "Conv")
_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Audit:
    """Bytes of weights: as the graph stores them, were they wider, and as they were built.

    `wide_bytes` is of quantised weights in the dtype of their scales and 16-bit ones in float32;
    `widened` is how far of the way there the engine is, 0 where it holds what the graph does.
    """

    asked: tuple[str, ...]
    stored_bytes: int
    wide_bytes: int
    built_bytes: int | None
    widened: float | None
    verdict: Verdict
    reason: str = ""


def audit(model: Path, built_bytes: int | None) -> Audit:
    """Compare an engine's weight memory with its graph's weights as stored and as wider floats.

    The verdict is "as asked" below the middle of the two, and "cannot tell" where they lie too
    near or the engine's bytes are not known. A float32 graph, which cannot be widened, is as asked
    where the engine holds all of it.
    """
    stored, wide, asked = _sizes(ir.load(model))
    if built_bytes is None:
        return Audit(asked, stored, wide, None, None, "cannot tell", "its bytes are not known")
    if asked == ("FLOAT",):
        whole = built_bytes >= WHOLE * stored
        return Audit(asked, stored, wide, built_bytes, None, "as asked" if whole else "cannot tell")
    if wide - stored < LEAST_BYTES:
        reason = f"its weights differ by {wide - stored} bytes only"
        return Audit(asked, stored, wide, built_bytes, None, "cannot tell", reason)
    widened = round((built_bytes - stored) / (wide - stored), 4)
    if widened < 0.5:
        return Audit(asked, stored, wide, built_bytes, widened, "as asked")
    reason = f"{built_bytes} bytes of weights, {stored} in the graph, {wide} were they wider"
    return Audit(asked, stored, wide, built_bytes, widened, "not as asked", reason)


def weights_of(model: Path) -> int:
    """Bytes of an ONNX file's floating and quantised constants; integers that index count not."""
    return _sizes(ir.load(model))[0]


def kernels(model: Path) -> dict[str, int]:
    """Nodes by operator, of those that multiply by weights."""
    found = Counter(node.op_type for node in ir.load(model).graph.all_nodes())
    return {name: count for name, count in sorted(found.items()) if _multiplies(name)}


def _multiplies(operator: str) -> bool:
    return any(kernel in operator for kernel in KERNELS)


def _sizes(model: ir.Model) -> tuple[int, int, tuple[str, ...]]:
    """Bytes of all weights, the same were they wider, and the narrow dtypes among them."""
    stored, wide, kinds = 0, 0, set[str]()
    for value in model.graph.initializers.values():
        if value.const_value is None or value.const_value.dtype == ir.DataType.INT64:
            continue
        size = value.const_value.nbytes
        factor = _width(value)
        stored += size
        wide += round(size * factor)
        if factor > 1:
            kinds.add(value.const_value.dtype.name)
    return stored, wide, tuple(sorted(kinds)) or ("FLOAT",)


def _width(value: ir.Value) -> float:
    """How many times as large a constant is in the next wider float, 1 where it has none."""
    tensor = value.const_value
    if tensor is None:
        return 1.0
    if tensor.dtype in _HALVES:
        return 2.0
    if tensor.dtype.itemsize > 1:
        return 1.0
    return max((_dequantised(use.node, use.idx) for use in value.uses()), default=1.0)


def _dequantised(node: ir.Node, index: int) -> float:
    """The same where a node reads it: a DequantizeLinear, or a kernel that does so itself."""
    if node.op_type == "DequantizeLinear" and index == 0:
        scale, tensor = node.inputs[1], node.inputs[0]
        kind = scale.dtype if scale is not None else None
        stored = tensor.const_value if tensor is not None else None
        return (kind or ir.DataType.FLOAT).itemsize / (stored.dtype.itemsize if stored else 1)
    if node.domain != "com.microsoft":
        return 1.0
    picks = node.op_type == "GatherBlockQuantized" and index == 0
    if not picks and (index != 1 or not _multiplies(node.op_type)):
        return 1.0
    return 32 / integer(node, "bits", 8)
