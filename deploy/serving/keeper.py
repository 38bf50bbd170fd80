"""The model that serves, and its change for another while requests run."""

import asyncio
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ... import Error
from ..bundle import MANIFEST, Manifest, manifest_of
from ..places import ARCHIVE, CURRENT
from ..runtime import Session, load


@dataclass(eq=False)
class Served:
    """A loaded model, its name and version, and how many requests use it."""

    session: Session
    name: str
    version: str
    users: int = 0
    retired: bool = False
    label: str = field(default="")

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
    """Loads what is at `path`; where that is a device's folder, follows its `current`."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        self._threads = threads
        self._target = self._pointed()
        self.model = self._load()
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
        target = self._pointed()
        if target == self._target:
            return
        self._target = target
        try:
            loaded = await asyncio.to_thread(self._load)
        except (Error, OSError):
            self.failures += 1
            return
        before, self.model = self.model, loaded
        self.switches += 1
        before.retire()

    def _pointed(self) -> str | None:
        try:
            return os.readlink(self.path / CURRENT)
        except OSError:
            return None

    def _load(self) -> Served:
        name, version = identity(self.path)
        return Served(load(self.path, threads=self._threads), name, version)


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
