"""The model that serves, and its change for another while requests run."""

import asyncio
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from ... import Error
from ..bundle import MANIFEST, Manifest, manifest_of
from ..places import ARCHIVE, CURRENT
from ..runtime import load
from .model import Model

#: Seconds until a version that could not be loaded is tried again, each time twice as many: what
#: was lacking may be there then, and to try takes reading all of it.
RETRY = 10.0


@dataclass(eq=False)
class Served:
    """A loaded model, its name and version, and how many requests use it."""

    session: Model
    name: str
    version: str
    users: int = 0
    retired: bool = False

    def leave(self) -> None:
        """One request less; who is last turns off the light."""
        self.users -= 1
        self._close()

    def retire(self) -> None:
        """Take no more requests: closed when the last one has ended."""
        self.retired = True
        self._close()

    def _close(self) -> None:
        if self.retired and not self.users:
            self.session.close()


class Keeper:
    """Holds what `loading` gives, by default what is at `path`; follows a device's `current`."""

    def __init__(
        self, path: Path, threads: int = 0, loading: Callable[[], Served] | None = None
    ) -> None:
        self.path = path
        self._loading = loading or (lambda: loaded(path, threads))
        self._target = pointed(path)
        self._pause, self._due = RETRY, inf
        self.model = self._loading()
        #: Switches that were made, and that failed: the version before goes on.
        self.switches = self.failures = 0

    @contextmanager
    def lease(self) -> Generator[Served]:
        """The current model, which stays open until this is left."""
        model = self.model
        model.users += 1
        try:
            yield model
        finally:
            model.leave()

    async def follow(self, seconds: float) -> None:
        """Look every so many seconds whether another version is current, and serve that."""
        while True:
            await asyncio.sleep(seconds)
            await self.look()

    async def look(self) -> None:
        """Serve the version that is current now, if it is another and can be loaded."""
        target = pointed(self.path)
        if target != self._target:
            self._pause, self._due = RETRY, -inf
        if time.monotonic() < self._due:
            return
        self._target, self._due = target, inf
        try:
            other = await asyncio.to_thread(self._loading)
        except (Error, OSError):
            self.failures += 1
            self._due, self._pause = time.monotonic() + self._pause, 2 * self._pause
            return
        before, self.model = self.model, other
        self.switches += 1
        before.retire()


def pointed(path: Path) -> str | None:
    """What a device's `current` points to; None of anything else."""
    try:
        return os.readlink(path / CURRENT)
    except OSError:
        return None


def loaded(path: Path, threads: int) -> Served:
    """What is at `path`, in this process."""
    name, version = identity(path)
    return Served(load(path, threads=threads), name, version)


def identity(path: Path) -> tuple[str, str]:
    """Name and version of what is at `path`: its manifest's, else the folder's name and 1."""
    if path.is_file() and path.name.endswith(ARCHIVE):
        found = manifest_of(path)
        return found.name, found.version
    for folder in (path, path / CURRENT):
        if (folder / MANIFEST).is_file():
            found = Manifest.load(folder)
            return found.name, found.version
    return path.resolve().name or "model", "1"
