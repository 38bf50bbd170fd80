"""Run an ONNX file on feeds exactly as it is written: ONNX Runtime with its rewrites turned off."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .. import ParityError
from ..deploy.backend import Feed
from ..deploy.ort_session import Settings, open_session
from ..passes import save
from .referenced import weights_of

Outputs = dict[str, NDArray[Any]]


def replay(path: Path, feeds: Sequence[Feed]) -> list[Outputs]:
    """The outputs of an ONNX file, by name, a dict a feed.

    Raises:
        MissingError: ONNX Runtime is not installed.
        BuildError: the file cannot be loaded.
        ParityError: it cannot be executed on a feed.
    """
    call = opened(path)
    return [call(feed) for feed in feeds]


def opened(path: Path) -> Callable[[Feed], Outputs]:
    """An ONNX file as a function of a feed; raises as `replay`."""
    session = open_session(path, Settings(optimized=True), weights=weights_of(path.parent))
    names = [output.name for output in session.get_outputs()]

    def call(feed: Feed) -> Outputs:
        try:
            arrays = session.run(names, dict(feed))
        except Exception as error:  # ONNX Runtime's own errors share no narrower class
            what = f"cannot be executed: {' '.join(str(error).split())[:300]}"
            raise ParityError(what, where=path) from error
        return {name: np.asarray(each) for name, each in zip(names, arrays, strict=True)}

    return call


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
