"""The statistics run: a model on ONNX Runtime with inner tensors as outputs."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .. import CalibrationError, ConfigError, MissingError
from .blocks import Block, model_of, split

Feed = Mapping[str, NDArray[np.generic]]
Arrays = dict[str, NDArray[np.generic]]

_FOLDER = "session.model_external_initializers_file_folder_path"


def forward(path: Path, tensors: Sequence[str], feeds: Sequence[Feed]) -> Iterator[Arrays]:
    """For each feed the named tensors as arrays; weights are mapped from disk, not read here.

    Raises as `forward_blocks`.
    """
    model = onnx.load(path, load_external_data=False)
    for index, feed in enumerate(feeds):
        fits(inputs_of(model), feed, index)
    (block,) = split(model, tensors, size=sys.maxsize)
    session = _mapped(model_of(model, block, {}), path.parent)
    yield from _run(session, block, tensors, feeds, None)


def forward_blocks(
    path: Path,
    tensors: Sequence[str],
    feeds: Sequence[Feed],
    folder: Path,
    *,
    together: Sequence[tuple[str, str]] = (),
    size: int | None = None,
    widths: Mapping[str, int] | None = None,
    weights: Path | None = None,
    rewrites: bool = True,
) -> Iterator[tuple[Sequence[str], Iterator[Arrays]]]:
    """The model block by block: the tensors that a block gives, and them of each feed.

    The weights of one block are in memory at a time; what later blocks read of earlier ones lies
    in `folder` meanwhile. A block's arrays are taken whole before the next block is asked for.
    `together`, `size` and `widths` are those of `split`. Weights lie beside the model, or in the
    folder `weights`. Without `rewrites` the runtime executes the graph exactly as it is written.

    Raises:
        MissingError: ONNX Runtime is not installed.
        ConfigError: a feed's names or shapes are not the model's inputs.
        CalibrationError: the model cannot be loaded or executed.
    """
    model = onnx.load(path, load_external_data=False)
    inputs, between = inputs_of(model), Between(folder)
    for index, feed in enumerate(feeds):
        fits(inputs, feed, index)
    blocks = split(model, tensors, together, size, widths)
    given = [name for name in tensors if name in inputs]
    for place, block in enumerate(blocks):
        wanted = [*(given if place == 0 else ()), *block.outputs]
        made = model_of(model, block, between.kinds)
        session = _mapped(made, weights or path.parent, rewrites=rewrites)
        yield wanted, _run(session, block, wanted, feeds, between)
        del session
        between.keep({name for later in blocks[place + 1 :] for name in later.reads})


class Between:
    """What blocks give to later ones, a file an array."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, int] = {}
        self._free = count()
        self.kinds: dict[str, int] = {}

    def write(self, feed: int, arrays: Arrays) -> None:
        """Keep arrays of one feed."""
        for name, array in arrays.items():
            self._places.setdefault(name, next(self._free))
            self.kinds[name] = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            np.save(self._path(feed, name), array)

    def read(self, feed: int, name: str) -> NDArray[np.generic]:
        """The array of one feed."""
        return np.load(self._path(feed, name))

    def keep(self, names: Collection[str]) -> None:
        """Delete all arrays but those."""
        for name in self._places.keys() - names:
            for path in self._folder.glob(f"*-{self._places.pop(name)}.npy"):
                path.unlink()

    def _path(self, feed: int, name: str) -> Path:
        return self._folder / f"{feed}-{self._places[name]}.npy"


def _run(
    session: Any,
    block: Block,
    wanted: Sequence[str],
    feeds: Sequence[Feed],
    between: Between | None,
) -> Iterator[Arrays]:
    """The wanted tensors of each feed; what later blocks read is kept."""
    taken = {item.name for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs()]
    for index, feed in enumerate(feeds):
        arrays = {name: array for name, array in feed.items() if name in taken}
        if between is not None:
            arrays |= {name: between.read(index, name) for name in block.reads}
        found = _outputs(session, names, arrays, index)
        if between is not None:
            between.write(index, {name: found[name] for name in block.gives})
        yield {name: found[name] if name in found else np.asarray(feed[name]) for name in wanted}


def _outputs(session: Any, names: Sequence[str], feed: Feed, index: int) -> Arrays:
    """The named outputs of a session for batch `index`; a CalibrationError when it fails."""
    try:
        return dict(zip(names, map(np.asarray, session.run(names, dict(feed))), strict=True))
    except Exception as error:
        raise CalibrationError(f"batch {index} cannot be executed: {_line(error)}") from error


def _mapped(model: onnx.ModelProto, folder: Path, *, rewrites: bool = True) -> Any:
    """A session on a model whose weights are mapped from that folder.

    Raises:
        MissingError: ONNX Runtime is not installed.
        CalibrationError: the model cannot be loaded.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingError(
            "ONNX Runtime is not installed", mend="pip install 'llmdeploy[cpu]'"
        ) from error
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(_FOLDER, str(folder.resolve()))
    # packed weights are copies of what is mapped, and gain nothing where tokens are many
    options.add_session_config_entry("session.disable_prepacking", "1")
    # what is given is counted meanwhile: threads that spin would take the cores from that
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not rewrites:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime's own errors share no narrower class
        raise CalibrationError(
            f"the model cannot be loaded: {_line(error)}", where=folder
        ) from error


def inputs_of(model: onnx.ModelProto) -> dict[str, list[int | str | None]]:
    """The shape of each input: sizes, names, or None."""
    weights = {each.name for each in model.graph.initializer}
    return {
        each.name: [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
            for dim in each.type.tensor_type.shape.dim
        ]
        for each in model.graph.input
        if each.name not in weights
    }


def fits(inputs: Mapping[str, Sequence[int | str | None]], feed: Feed, index: int) -> None:
    """Hold a feed against a model's inputs.

    Raises:
        ConfigError: a name is missing or unknown, or a shape is another.
    """
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
