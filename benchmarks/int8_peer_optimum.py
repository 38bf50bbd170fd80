"""optimum-onnx in an environment of its own: int8_peer_optimum.py PRESET MODEL FEEDS OUT.

PRESET is one of AutoQuantizationConfig's with `static` or `dynamic` behind it, as in
avx512_vnni-static; FEEDS is a folder of .npz files, batches of one shape; OUT is the quantised
ONNX file. Calibration is optimum's default, min-max.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationMethod
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig, CalibrationConfig
from transformers import PretrainedConfig


def main() -> None:
    preset, model, folder, out = sys.argv[1:]
    name, _, kind = preset.partition("-")
    asked = getattr(AutoQuantizationConfig, name)(is_static=kind == "static", per_channel=True)
    quantizer = ORTQuantizer(Path(model), config=PretrainedConfig())
    ranges = calibrated(quantizer, asked, Path(folder)) if asked.is_static else None
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as aside:
        made = quantizer.quantize(asked, aside, calibration_tensors_range=ranges)
        (Path(made) / f"{Path(model).stem}_quantized.onnx").rename(out)


def calibrated(quantizer: ORTQuantizer, asked: object, folder: Path) -> object:
    """Ranges of the operators that the preset quantises."""
    batches = [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]
    rows = [
        {name: array[row] for name, array in batch.items()}
        for batch in batches
        for row in range(len(batch["input_ids"]))
    ]
    with tempfile.TemporaryDirectory() as aside:
        return quantizer.fit(
            rows,
            CalibrationConfig("texts", "", "", len(rows), CalibrationMethod.MinMax),
            onnx_augmented_model_name=Path(aside) / "augmented.onnx",
            operators_to_quantize=asked.operators_to_quantize,
            batch_size=len(batches[0]["input_ids"]),
        )


if __name__ == "__main__":
    main()
