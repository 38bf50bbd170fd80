"""Arrays on disk: what is known of each sample between two layers, and weights that were changed.

A model larger than memory is compressed with one layer of it in memory at a time.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...calibration.moments import Moments
from ..narrowing import Narrowing
from .stretch import Array, Arrays, Feeds

#: Tensors of no more bytes than this stay in memory.
SMALL = 1 << 16


class Shelf:
    """What is known of each feed at one place of the graph: its own arrays, and those put there."""

    def __init__(self, feeds: Feeds, folder: Path) -> None:
        self._feeds, self._folder = feeds, folder
        self._names: list[tuple[str, ...]] = [() for _ in feeds]
        #: Makes a feed fit what a model takes by now.
        self.narrow = Narrowing()
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Arrays]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Arrays:
        found: Arrays = dict(self.narrow.feed(self._feeds[index]))
        for place, name in enumerate(self._names[index]):
            found[name] = np.load(self._path(index, place))
        return found

    def put(self, index: int, arrays: Mapping[str, Array]) -> None:
        """Keep these of a feed, and nothing else that was kept of it."""
        before = len(self._names[index])
        for place, array in enumerate(arrays.values()):
            np.save(self._path(index, place), array)
        for place in range(len(arrays), before):
            self._path(index, place).unlink()
        self._names[index] = tuple(arrays)

    def _path(self, index: int, place: int) -> Path:
        return self._folder / f"{index}-{place}.npy"


class Spill:
    """Puts the weights that a change left in memory into files, where others are read from."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, count()

    def __call__(self, model: ir.Model) -> None:
        """Large initializers that are in memory become references to files."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes <= SMALL:
                continue
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{next(self._count)}.bin"
            (self._folder / name).write_bytes(tensor.tobytes())
            value.const_value = ir.ExternalTensor(
                location=name,
                offset=0,
                length=tensor.nbytes,
                dtype=tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=tensor.name or "",
                base_dir=self._folder,
            )


class Filed(Mapping[str, Moments]):
    """Second moments of inputs by layer, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, seen: Moments) -> None:
        """Keep what was seen of a layer's inputs."""
        self._places[name], self._rows[name] = len(self._places), seen.rows
        np.savez(self._path(name), gram=seen.gram, x=seen.x)

    def __getitem__(self, name: str) -> Moments:
        with np.load(self._path(name)) as found:
            made = Moments(len(found["x"]), 0, self._rows[name])
            made.gram, made.x = found["gram"], found["x"]
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._places[name]}.npz"
