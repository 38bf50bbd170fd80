"""The statistics run: a model on ONNX Runtime with inner tensors as outputs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from .. import CalibrationError, ConfigError, MissingError

Feed = Mapping[str, NDArray[np.generic]]
Arrays = dict[str, NDArray[np.generic]]

_FOLDER = "session.model_external_initializers_file_folder_path"


def forward(path: Path, tensors: Sequence[str], feeds: Sequence[Feed]) -> Iterator[Arrays]:
    """For each feed the named tensors as arrays; weights are mapped from disk, not read here.

    Raises:
        MissingError: ONNX Runtime is not installed.
        ConfigError: a feed's names or shapes are not the model's inputs.
        CalibrationError: the model cannot be loaded or executed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingError(
            "ONNX Runtime is not installed", mend="pip install 'llmdeploy[cpu]'"
        ) from error
    model = with_outputs(path, tensors)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(_FOLDER, str(path.parent.resolve()))
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own errors share no narrower class
        raise CalibrationError(f"the model cannot be loaded: {_line(error)}", where=path) from error
    inputs = {item.name: item.shape for item in session.get_inputs()}
    for index, feed in enumerate(feeds):
        _fits(inputs, feed, index)
        try:
            found = session.run(list(tensors), dict(feed))
        except Exception as error:
            raise CalibrationError(
                f"batch {index} cannot be executed: {_line(error)}", where=path
            ) from error
        yield dict(zip(tensors, map(np.asarray, found), strict=True))


def with_outputs(path: Path, tensors: Sequence[str]) -> onnx.ModelProto:
    """The model, its weights left on disk, with the tensors as its outputs."""
    model = onnx.load(path, load_external_data=False)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return model


def _fits(inputs: Mapping[str, Sequence[int | str | None]], feed: Feed, index: int) -> None:
    where = f"batch {index} of the samples"
    for name, shape in inputs.items():
        if name not in feed:
            raise ConfigError(
                f"the samples have no array {name!r}",
                where=where,
                mend=f"the model takes {', '.join(inputs)}",
            )
        given = feed[name].shape
        sizes = zip(shape, given, strict=False)
        if len(shape) != len(given) or any(isinstance(a, int) and a != b for a, b in sizes):
            raise ConfigError(
                f"array {name!r} is {list(given)}",
                where=where,
                mend=f"the model takes {list(shape)}",
            )
    unknown = [name for name in feed if name not in inputs]
    if unknown:
        raise ConfigError(
            f"the model has no input {unknown[0]!r}",
            where=where,
            mend=f"it takes {', '.join(inputs)}",
        )


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
