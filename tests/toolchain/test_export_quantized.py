"""Levels without their scales are no weights: such checkpoints are refused at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from llmdeploy import ExportError
from llmdeploy.toolchain.exporter.exporting import export
from llmdeploy.toolchain.exporter.quantized import refuse_quantized
from safetensors.torch import save_file

FP8 = torch.float8_e4m3fn


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir()
    save_file({"norm.weight": torch.ones(2), **tensors}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


GPTQ = {"q_proj.qweight": torch.zeros((2, 2), dtype=torch.int32)}
SCALED = {"q.weight": torch.zeros((2, 2), dtype=FP8), "q.weight_scale_inv": torch.ones(1, 1)}
MLX = {"q.weight": torch.zeros((2, 2), dtype=torch.uint32), "q.scales": torch.ones(2, 1)}
SHORT = {"q.weight": torch.ones((2, 2), dtype=torch.int16)}


@pytest.mark.parametrize(
    ("tensors", "config", "kind"),
    [
        (GPTQ, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ"),
        (GPTQ, {"text_config": {"quantization_config": {"quant_method": "awq"}}}, "AWQ"),
        (SCALED, {"quantization_config": {"quant_method": "fp8"}}, "FP8"),
        (SCALED, {}, "F8_E4M3"),
        (MLX, {"quantization_config": {"group_size": 64, "bits": 4}}, "U32"),
        (MLX, {"quantization": {"group_size": 64, "bits": 4}}, "U32"),
        (SHORT, {"quantization_config": {"bits": 16}}, "I16"),
    ],
)
def test_levels_are_refused(
    tensors: dict[str, torch.Tensor], config: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "model", tensors, **config)
    with pytest.raises(ExportError, match=rf"quantised already \({kind}\).*--int4"):
        export(str(folder), tmp_path / "out")


def test_plain_tensors_are_taken(tmp_path: Path) -> None:
    """A position table is I64; FP8 without scales is a float like others."""
    refuse_quantized(checkpoint(tmp_path / "ids", {"ids": torch.arange(3)}))
    refuse_quantized(checkpoint(tmp_path / "fp8", {"w": torch.zeros((2, 2), dtype=FP8)}))
    said = {"quantization_config": {"quant_method": "bitsandbytes"}}
    refuse_quantized(checkpoint(tmp_path / "float", {}, **said))
