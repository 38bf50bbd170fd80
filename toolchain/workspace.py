"""The workspace: a folder a stage, written aside, renamed when whole, run again when stale."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from .. import ConfigError, Error
from .memory import peak_memory

RECORD = "stage.json"
SCHEMA = 1


class Work(Protocol):
    """What a stage does: fill the folder it is given, return its results as plain JSON values."""

    def __call__(self, folder: Path, /) -> dict[str, Any]:
        """Fill `folder`; what is returned goes to `stage.json` as `results`."""
        ...


@dataclass(frozen=True)
class Stage:
    """What `stage.json` holds of one stage that is whole."""

    name: str
    key: str
    inputs: dict[str, str]
    options: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    peak_memory_bytes: int
    results: dict[str, Any]
    files: dict[str, str]
    stats: dict[str, list[int]]
    schema_version: int = SCHEMA
    fresh: bool = field(default=False, compare=False)

    @property
    def digest(self) -> str:
        """What a later stage takes as this one's digest: its files, not its timings."""
        return digest_of(self.files)


class Workspace:
    """A release's folder; one run writes it at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str) -> Path:
        """The folder of a stage, whole or not there."""
        return self.root / stage

    def stage(self, name: str) -> Stage | None:
        """The record of a whole stage, None when it is not there or cannot be read."""
        try:
            record = json.loads((self.path(name) / RECORD).read_text(encoding="utf-8"))
            return Stage(**record) if record["schema_version"] == SCHEMA else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def size(self, name: str) -> int:
        """Bytes of a stage's files."""
        return sum(path.stat().st_size for path in self.path(name).rglob("*") if path.is_file())

    @contextmanager
    def locked(self, wait: float = 600.0) -> Generator[None]:
        """Hold the workspace: a second run waits, and is told after `wait` seconds."""
        elsewhere = "name another place by --workspace"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot create the workspace: {error.strerror}"
            raise ConfigError(what, where=self.root, mend=elsewhere) from error
        lock = FileLock(self.root / ".lock", timeout=wait)
        try:
            lock.acquire()
        except Timeout as error:
            raise Error(
                "another run holds the workspace",
                where=self.root,
                mend="wait for it, or use --workspace",
            ) from error
        except OSError as error:
            what = f"cannot write to the workspace: {error.strerror or error}"
            raise ConfigError(what, where=self.root, mend=elsewhere) from error
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def run(
        self,
        name: str,
        work: Work,
        *,
        inputs: Mapping[str, str],
        options: Mapping[str, Any],
        versions: Mapping[str, str],
        force: bool = False,
    ) -> Stage:
        """Give the stage as it stands when nothing it depends on changed, else do `work` anew.

        Nothing is at the final name until the whole folder is on disk. Raises what `work`
        raises; a full disk or a missing permission becomes an `Error`.
        """
        asked = plain(dict(options))
        key = key_of(inputs, options, versions)
        old = self.stage(name)
        if old and not force and old.key == key and self._whole(name, old):
            return replace(old, fresh=True)
        aside = self._aside(name, "part")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            started = time.perf_counter()
            with peak_memory() as peak:
                results = plain(work(aside))
            record = Stage(
                name=name,
                key=key,
                inputs=dict(inputs),
                options=asked,
                versions=dict(versions),
                seconds=round(time.perf_counter() - started, 3),
                peak_memory_bytes=peak.bytes,
                results=results,
                files=digests(aside),
                stats=stats(aside),
            )
            self._commit(aside, name, record)
            return record
        except OSError as error:
            raise Error(
                f"cannot write: {error.strerror or error}",
                where=f"stage {name} in {self.root}",
                mend="free space or mend the permissions; the stage before it is kept",
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _commit(self, aside: Path, name: str, record: Stage) -> None:
        write_json(aside / RECORD, {k: v for k, v in asdict(record).items() if k != "fresh"})
        for path in aside.rglob("*"):
            sync(path)
        old = self._aside(name, "old")
        final = self.path(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            final.rename(old)
        aside.rename(final)
        sync(final.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _aside(self, name: str, kind: str) -> Path:
        return self.root / f".{name.replace('/', '+')}.{os.getpid()}.{kind}"

    def _whole(self, name: str, record: Stage) -> bool:
        """Whether its files are as they were made; read again only where size or time differ."""
        folder = self.path(name)
        return stats(folder) == record.stats or digests(folder) == record.files

    def _sweep(self) -> None:
        """Put back what a killed run left half renamed, and drop what it left aside."""
        for old in self.root.glob(".*.old"):
            final = self.path(old.name.split(".")[1].replace("+", "/"))
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(final)
        for part in self.root.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)


def key_of(
    inputs: Mapping[str, str], options: Mapping[str, Any], versions: Mapping[str, str]
) -> str:
    """What a stage is fresh by: sha256 of all that decides it."""
    return digest_of([dict(inputs), plain(dict(options)), dict(versions), SCHEMA])


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples are lists, numpy's scalars are numbers."""
    return json.loads(json.dumps(value, default=lambda scalar: scalar.item()))


def digest_of(value: object) -> str:
    """sha256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder` but the record itself, by relative name."""
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in _files(folder)}


def stats(folder: Path) -> dict[str, list[int]]:
    """Size in bytes and time of the last change in ns of the same files."""
    found = ((path.relative_to(folder).as_posix(), path.stat()) for path in _files(folder))
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)


def write_json(path: Path, value: object) -> None:
    """Write JSON for people and machines, as `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step: a reader finds the old one or the new.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        # A lone surrogate in a file name must not cost the report.
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to disk, so that a rename after it never shows an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
