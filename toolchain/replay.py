"""Run an ONNX file on feeds exactly as it is written: ONNX Runtime with its rewrites turned off.

A model larger than memory runs a block of it at a time, all feeds through each block. What is
bfloat16, which the CPU has no kernel of, is run as float32.
"""

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .. import CalibrationError, ConfigError, ParityError
from ..calibration import forward_blocks, is_large
from ..deploy.backend import Feed
from ..deploy.ort_session import Settings, open_session
from ..passes import save
from .spilled import Spilled
from .widened import runnable

Outputs = dict[str, NDArray[Any]]


def replay(path: Path, feeds: Sequence[Feed], names: Collection[str] = ()) -> list[Outputs]:
    """The outputs of an ONNX file, by name, a dict a feed; `names` alone where some are named.

    Raises:
        MissingError: ONNX Runtime is not installed.
        BuildError: the file cannot be loaded.
        ParityError: it cannot be executed on a feed.
    """
    return replaying(path, names, arena=False)(feeds)


def replays(path: Path, feeds: Iterable[Feed], aside: Path) -> Iterator[Outputs]:
    """As `replay`, a feed at a time: what a model larger than memory gives lies in `aside` first.

    Raises:
        OSError: that cannot be written.
    """
    if not is_large(path):
        yield from map(opened(path, arena=False), feeds)
        return
    with tempfile.TemporaryDirectory(dir=aside, prefix="replayed-") as folder:
        given = feeds if isinstance(feeds, Sequence) else Spilled(Path(folder, "feeds"), feeds)
        kept = Spilled(Path(folder, "outputs"))
        for index, arrays in _from_blocks(path, given, (), Path(folder)):
            kept.put(index, arrays)
        yield from map(kept.take, range(len(kept)))


def replaying(
    path: Path, names: Collection[str] = (), *, arena: bool = True, large: bool | None = None
) -> Callable[[Sequence[Feed]], list[Outputs]]:
    """An ONNX file as a function of feeds; raises as `replay`, when it is called or before.

    It is opened once; one that is larger than memory, or said to be `large`, is read block by
    block at each call.
    """
    if is_large(path) if large is None else large:
        return lambda feeds: _in_blocks(path, feeds, names)
    call = opened(path, names, arena=arena)
    return lambda feeds: [call(feed) for feed in feeds]


def _in_blocks(path: Path, feeds: Sequence[Feed], names: Collection[str]) -> list[Outputs]:
    found: list[Outputs] = [{} for _ in feeds]
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside:
        for index, arrays in _from_blocks(path, feeds, names, Path(aside)):
            # copies: an array of the runtime's keeps all memory of its session
            found[index] |= {name: np.array(array) for name, array in arrays.items()}
    return found


def _from_blocks(
    path: Path, feeds: Sequence[Feed], names: Collection[str], aside: Path
) -> Iterator[tuple[int, Outputs]]:
    """The outputs that each block gives, and the feed that they are of."""
    import onnx

    outputs = [each.name for each in onnx.load(path, load_external_data=False).graph.output]
    wanted = [name for name in outputs if not names or name in names]
    try:
        with runnable(path) as file:
            fed = Spilled(aside / "fed", map(file.fed, feeds)) if file.path != path else feeds
            for _, runs in forward_blocks(
                file.path, wanted, fed, aside, weights=file.weights, rewrites=False
            ):
                yield from ((index, file.given(arrays)) for index, arrays in enumerate(runs))
    except (CalibrationError, ConfigError) as error:
        raise ParityError(error.what, where=error.where or path, mend=error.mend) from error


def opened(
    path: Path, names: Collection[str] = (), *, arena: bool = True
) -> Callable[[Feed], Outputs]:
    """An ONNX file as a function of a feed; raises as `replay`.

    Without an arena it gives memory back after each call, which costs time where calls are many.
    """
    settings = Settings(optimized=True, arena=arena)
    with runnable(path) as file:  # once it is open, a widened copy is mapped and may go
        session = open_session(file.path, settings, weights=file.weights)
    every = [output.name for output in session.get_outputs()]
    asked = [name for name in every if not names or name in names]

    def call(feed: Feed) -> Outputs:
        try:
            arrays = session.run(asked, file.fed(feed))
        except Exception as error:  # ONNX Runtime's own errors share no narrower class
            what = f"cannot be executed: {' '.join(str(error).split())[:300]}"
            raise ParityError(what, where=path) from error
        return file.given(dict(zip(asked, map(np.asarray, arrays), strict=True)))

    return call


def unpadded(feed: Feed, mask: str | None) -> Feed:
    """The rows of a feed that have no padding, by the input `mask`; all, where each has some.

    No token reads what padded places hold, and a norm may make much of its rounding.
    """
    rows = {len(array) for array in feed.values() if array.ndim}
    if mask is None or mask not in feed or len(rows) != 1:
        return feed
    whole = np.asarray(feed[mask], bool).reshape(rows.pop(), -1).all(axis=1)
    if not whole.any():
        return feed
    return {name: array[whole] if array.ndim else array for name, array in feed.items()}


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
