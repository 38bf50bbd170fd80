"""A graph written in the place of the one that it still reads its weights from."""

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

from ..passes import save


def replace_model(model: ir.Model, out: Path) -> None:
    """Save a model in `out`, where its own file and weights lie, when it is whole."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".whole-") as folder:
        save(model, Path(folder))
        for path in Path(folder).iterdir():
            os.replace(path, out / path.name)
