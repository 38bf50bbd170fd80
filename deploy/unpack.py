"""Unpacking a stranger's archive: inside one new folder, within limits, whole or not at all."""

import os
import shutil
from collections.abc import Callable
from math import inf
from pathlib import Path

from .. import BundleError
from .archive import Entry, Limits, reading, refuse
from .names import Names

#: The share of a disk's free bytes that unpacking may take: others write there too.
ROOM = 0.95


def unpack(
    archive: Path,
    folder: Path,
    limits: Limits | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Unpack into `folder`, which must not exist: written aside, flushed to disk, then renamed.

    `check` is given the folder before it has its name, and raises if it must not have it.

    Raises:
        BundleError: the archive is unsound or beyond `limits`, an entry's name leaves the folder
            or collides with another's, or the disk is full. Nothing is left at `folder`.
    """
    if folder.exists():
        raise BundleError("the folder exists already", where=folder, mend="name a new one")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True, mode=0o755)
        _extract(archive, aside, limits or Limits())
        if check:
            check(aside)
        flush(aside)
        aside.rename(folder)
        sync(folder.parent)
    except OSError as error:
        what = f"cannot unpack: {error.strerror or error}"
        raise BundleError(what, where=folder, mend="free space or mend the permissions") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(archive: Path, folder: Path, limits: Limits) -> None:
    room = int(ROOM * shutil.disk_usage(folder).free)
    allowed = min(limits.bytes, _unfolded(archive, limits))
    count, known = 0, Names()
    with reading(archive) as entries:
        for entry in entries:
            refuse(entry.name, known, archive)
            count += 1
            allowed, room = allowed - entry.size, room - entry.size
            if allowed < 0:
                what = f"{entry.name!r} makes it larger than allowed"
                raise BundleError(what, where=archive)
            if room < 0:
                what = f"no room: {entry.name!r} would fill the disk"
                raise BundleError(what, where=folder.parent, mend="free space")
            if count > limits.entries:
                raise BundleError(f"more than {limits.entries} entries", where=archive)
            _write(entry, folder / entry.name)


def _unfolded(archive: Path, limits: Limits) -> float:
    """The most bytes that an archive of its size may become."""
    return inf if limits.ratio is None else max(64 << 20, limits.ratio * archive.stat().st_size)


def _write(entry: Entry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in entry.chunks():
            file.write(chunk)


def flush(folder: Path) -> None:
    """Flush a folder, and every file and folder in it, to disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, so that a rename after it outlives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
