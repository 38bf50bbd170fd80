"""The folder a device runs from: versions side by side, and one link that says which is current.

    ROOT/current             a link to versions/NAME-VERSION-DIGEST
    ROOT/versions/...        unpacked bundles
    ROOT/rebuilt/...         of each version: engines that were built here from its portable graph
    ROOT/records/....json    of each version: when and how it came, and what was current before

Everything is on disk before `current` is switched, by one rename: whoever reads it, at any moment
and after a power cut, finds the old version or the new one.
"""

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from .. import BundleError
from .bundle import SIGNATURE, Manifest
from .places import CURRENT, REBUILT
from .unpack import sync


class Record(BaseModel):
    """How a version came to be here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    #: The version that was current before, by its folder's name.
    previous: str | None = None
    signed: bool = False


class Root:
    """A device's folder of versions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.versions = path / "versions"
        self.records = path / "records"
        self.rebuilt = path / REBUILT

    @contextmanager
    def locked(self, wait: float) -> Generator[None]:
        """Hold the folder; raises BundleError when another install holds it for `wait` seconds."""
        for folder in (self.path, self.versions, self.records, self.rebuilt):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=wait)
        try:
            lock.acquire()
        except Timeout as error:
            raise BundleError("another install is at work", where=self.path) from error
        try:
            self._sweep_parts()
            yield
        finally:
            lock.release()

    @property
    def current(self) -> str | None:
        """The current version's folder name, None before the first install."""
        try:
            return Path(os.readlink(self.path / CURRENT)).name
        except OSError:
            return None

    def record(self, folder: str) -> Record | None:
        """The record of a version; of one that cannot be read what its bundle says, None of none.

        What was before is not known then. A bundle that carries a signature counts as signed: a
        lost record lets nobody put an unsigned, an older or another one in its place.
        """
        try:
            return Record.model_validate_json((self.records / f"{folder}.json").read_bytes())
        except (OSError, ValidationError):
            return self._by_its_bundle(self.versions / folder)

    def _by_its_bundle(self, path: Path) -> Record | None:
        try:
            manifest = Manifest.load(path)
        except BundleError:
            return None
        signed = (path / SIGNATURE).is_file()
        return Record(name=manifest.name, version=manifest.version, signed=signed)

    def write(self, folder: str, record: Record) -> None:
        """Put a version's record on disk, replacing an older one in one step."""
        path = self.records / f"{folder}.json"
        aside = path.with_name(f".{path.name}.part")
        with aside.open("w", encoding="utf-8") as file:
            json.dump(record.model_dump(), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync(self.records)

    def switch(self, folder: str) -> None:
        """Make a version current, by one rename that is flushed to disk."""
        aside = self.path / f".{CURRENT}.part"
        aside.unlink(missing_ok=True)
        aside.symlink_to(Path("versions") / folder)
        aside.replace(self.path / CURRENT)
        sync(self.path)

    def chain(self) -> list[str]:
        """The current version, the one before it, and so on, as far as they are still here."""
        found: list[str] = []
        folder = self.current
        while folder and folder not in found and (self.versions / folder).is_dir():
            found.append(folder)
            record = self.record(folder)
            folder = record.previous if record else None
        return found

    def remove(self, folder: str) -> None:
        """Remove a version that is not current; its name goes first, so that no half is left."""
        path = self.versions / folder
        aside = self.versions / f".{folder}.part"
        if path.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(self.rebuilt / folder, ignore_errors=True)
        (self.records / f"{folder}.json").unlink(missing_ok=True)

    def prune(self, keep: int) -> None:
        """Remove every version but the current one and those before it, `keep` in all."""
        kept = set(self.chain()[: max(keep, 1)])
        for path in self.versions.iterdir():
            if path.name not in kept:
                self.remove(path.name)

    def _sweep_parts(self) -> None:
        for part in self.path.glob("*/.*.part"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
