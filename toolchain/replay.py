"""Run an ONNX file on feeds exactly as it is written: ONNX Runtime with its rewrites turned off."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .. import MissingError, ParityError
from ..deploy.backend import Feed
from ..passes import save

Outputs = dict[str, NDArray[Any]]


def replay(path: Path, feeds: Sequence[Feed]) -> list[Outputs]:
    """The outputs of an ONNX file, by name, a dict a feed.

    Raises:
        MissingError: ONNX Runtime is not installed.
        ParityError: the file cannot be loaded or executed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingError(
            "ONNX Runtime is not installed", mend="pip install 'llmdeploy[cpu]'"
        ) from error
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return [
            dict(zip(names, _arrays(session.run(names, dict(feed))), strict=True)) for feed in feeds
        ]
    except Exception as error:  # ONNX Runtime's own errors share no narrower class
        raise ParityError(f"cannot be executed: {_first_line(error)}", where=path) from error


class Probe:
    """A model's outputs on fixed feeds, for the pass manager: outputs of feed i as `name#i`."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.feeds = feeds

    def __call__(self, model: ir.Model) -> Outputs:
        """Save the model aside, run it as it stands."""
        with tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder:
            save(model, Path(folder))
            results = replay(Path(folder) / "model.onnx", self.feeds)
        return {
            f"{name}#{index}": array
            for index, outputs in enumerate(results)
            for name, array in outputs.items()
        }


def _arrays(values: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.asarray(value) for value in values]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
