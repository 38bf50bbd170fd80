"""Arrays of feeds on disk, read back one feed at a time: in memory they would grow with samples."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Spilled(Sequence[Arrays]):
    """What was put into a folder, a dict of arrays a feed; each is read when it is asked for."""

    def __init__(self, folder: Path, feeds: Iterable[Mapping[str, NDArray[Any]]] = ()) -> None:
        """Make the folder and put the feeds there, one after the other."""
        self._folder = folder
        self._kinds: list[dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = []
        folder.mkdir(parents=True)
        for feed in feeds:
            self.put(len(self), feed)
            del feed  # before the next is made: it may be large

    def put(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add arrays to those of a feed.

        Raises:
            OSError: they cannot be written.
        """
        while len(self._kinds) <= index:
            self._kinds.append({})
        kinds = self._kinds[index]
        for name, array in arrays.items():
            kinds[name] = (array.dtype, array.shape)
            # not numpy's own writing, which does not say that it was the disk that is full
            flat = np.ascontiguousarray(array).reshape(-1)
            self._path(index, name).write_bytes(flat.view(np.uint8).data)

    def take(self, index: int) -> Arrays:
        """The arrays of a feed, which are given up."""
        found = self[index]
        for name in self._kinds[index]:
            self._path(index, name).unlink()
        self._kinds[index] = {}
        return found

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, index: int) -> Arrays: ...

    @overload
    def __getitem__(self, index: slice) -> list[Arrays]: ...

    def __getitem__(self, index: int | slice) -> Arrays | list[Arrays]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return {
            name: np.fromfile(self._path(place, name), np.uint8).view(dtype).reshape(shape)
            for name, (dtype, shape) in self._kinds[place].items()
        }

    def _path(self, index: int, name: str) -> Path:
        return self._folder / f"{index}-{list(self._kinds[index]).index(name)}.bin"
