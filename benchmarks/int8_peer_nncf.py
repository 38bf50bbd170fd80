"""NNCF in an environment of its own: int8_peer_nncf.py MODEL FEEDS OUT.

FEEDS is a folder of .npz files, a batch each; OUT is the quantised ONNX file.
"""

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx


def main() -> None:
    model, folder, out = sys.argv[1:]
    feeds = [dict(np.load(path)) for path in sorted(Path(folder).glob("*.npz"))]
    made = nncf.quantize(
        onnx.shape_inference.infer_shapes(onnx.load(model)),
        nncf.Dataset(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
    )
    onnx.save(made, out)


if __name__ == "__main__":
    main()
