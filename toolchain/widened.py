"""A graph of bfloat16 as ONNX Runtime's CPU can run it: in float32, with the same weights.

The CPU has no kernel of bfloat16. Widening is exact, so that such a graph is held against what it
came from all the same; what its own arithmetic rounds shows on the target alone.
"""

import tempfile
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from ..passes import load, save
from ..passes.widen import widen
from .referenced import weights_of

_BRAIN = onnx.TensorProto.BFLOAT16
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Runnable:
    """A file that can be run, where its weights lie if apart, and what outputs were bfloat16."""

    path: Path
    weights: Path | None
    narrowed: Collection[str] = ()

    def fed(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        """A feed of the graph as this file takes it."""
        return {name: _wide(array) for name, array in feed.items()}

    def given(self, outputs: Arrays) -> dict[str, NDArray[Any]]:
        """What this file gives, in the dtypes of the graph."""
        return {
            name: array.astype(ml_dtypes.bfloat16) if name in self.narrowed else array
            for name, array in outputs.items()
        }


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


@contextmanager
def runnable(path: Path) -> Generator[Runnable]:
    """An ONNX file of ours as it can be run on this CPU, while the block lasts.

    Raises:
        OSError: a widened copy cannot be written.
    """
    weights = weights_of(path.parent)
    if not of_bfloat16(path):
        yield Runnable(path, weights)
        return
    model = load(path, weights)
    narrowed = {value.name for value in model.graph.outputs if value.dtype == _BRAIN}
    widen(model)
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder:
        save(model, Path(folder))
        yield Runnable(Path(folder) / "model.onnx", None, {name for name in narrowed if name})


def of_bfloat16(path: Path) -> bool:
    """Whether any input or weight of an ONNX file is bfloat16; its data is not read."""
    graph = onnx.load(path, load_external_data=False).graph
    inputs = any(each.type.tensor_type.elem_type == _BRAIN for each in graph.input)
    return inputs or any(each.data_type == _BRAIN for each in graph.initializer)
