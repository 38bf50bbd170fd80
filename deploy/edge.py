"""The edge packager: engines, portable graph, tokenizer and golden runs in one archive."""

from pathlib import Path
from typing import Any

from .archive import Source
from .archive import pack as pack_archive
from .bundle import MANIFEST, digest
from .contents import Contents
from .gather import below, engine, sealed, shared
from .places import ARCHIVE, ASSETS
from .provenance import write

PORTABLE = "portable"


def pack(contents: Contents, folder: Path) -> dict[str, Any]:
    """Write `folder`/NAME-VERSION.tar.zst; give its path, sha256, bytes and number of files.

    Its provenance is written beside it, under the name that `provenance` gives.

    Raises:
        ConfigError: the name or the version is not fit for a file's name.
        BundleError: there is no engine or no golden run, or the archive cannot be written.
    """
    files = whole(contents)
    archive = folder / f"{contents.name}-{contents.version}{ARCHIVE}"
    pack_archive(files, archive, first=[MANIFEST])
    sha256 = digest(archive)
    return {
        "path": archive.name,
        "provenance": write(contents, archive, sha256).name,
        "sha256": sha256,
        "bytes": archive.stat().st_size,
        "files": len(files),
    }


def whole(contents: Contents) -> dict[str, Source]:
    """All files of a bundle by their names, the manifest first.

    Raises:
        ConfigError: something the caller chose does not fit the manifest's schema.
        BundleError: there is no engine or no golden run.
    """
    files = shared(contents)
    for backend in contents.engines:
        files |= _engine(contents, backend, files)
    portable = PORTABLE if contents.portable else None
    if contents.portable:
        files |= _beside(below(contents.portable, PORTABLE), files)
    engines = [engine(contents, backend, f"engines/{backend}") for backend in contents.engines]
    return sealed(contents, files, engines, portable)


def _engine(contents: Contents, backend: str, files: dict[str, Source]) -> dict[str, Path]:
    return _beside(below(contents.engines[backend], f"engines/{backend}"), files)


def _beside(found: dict[str, Path], files: dict[str, Source]) -> dict[str, Path]:
    """Files without those that `model/` holds already under their name."""
    return {
        name: path
        for name, path in found.items()
        if not _same(path, files.get(f"{ASSETS}/{path.name}"))
    }


def _same(one: Path, other: Source | None) -> bool:
    if not isinstance(other, Path) or one.stat().st_size != other.stat().st_size:
        return False
    return digest(one) == digest(other)
