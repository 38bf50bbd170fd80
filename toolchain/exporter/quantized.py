"""Checkpoints whose weights are quantised already: their levels are no weights without scales."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import ExportError
from ..checkpoint import read_json
from .stored import stored

#: What levels and packed bits are stored in; a position table is I64.
_LEVELS = ("F8_E4M3", "F8_E5M2", "I8", "U8", "I16", "U16", "I32", "U32")
#: How the tensors of scales end, DeepSeek's and compressed-tensors', and MLX's.
_SCALES = ("_scale", "_scale_inv", ".scales")
_MEND = "export the float checkpoint that it was made of, then build --int4, or --precision w8"


def refuse_quantized(folder: Path) -> None:
    """Refuse a safetensors checkpoint of GPTQ, AWQ, FP8 and their like; one of plain FP8 is taken.

    Raises:
        ExportError: its configuration says so, or scales lie beside its levels.
    """
    said, tensors = _said(folder), stored(folder)
    scaled = any(name.endswith(_SCALES) for name in tensors)
    levels = next((each for each in tensors.values() if each.dtype in _LEVELS), None)
    if levels is not None and (said or scaled):
        kind = str(said.get("quant_method") or "").upper() or levels.dtype
        raise ExportError(
            f"its weights are quantised already ({kind}): {levels.name} holds levels",
            where=folder,
            mend=_MEND,
        )


def _said(folder: Path) -> Mapping[str, Any]:
    """What the configuration says of how its weights, or those of its text model, are kept."""
    config = read_json(folder / "config.json")
    inner = config.get("text_config")
    tables = (config, inner if isinstance(inner, dict) else {})
    found = [table.get("quantization_config") for table in tables]
    found.append(read_json(folder / "quantize_config.json"))  # AutoGPTQ's own
    return next((each for each in found if isinstance(each, dict) and each), {})
