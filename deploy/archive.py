"""Reproducible tar.zst archives of plain files, and reading those of strangers.

An archive is one Zstandard stream of the plainest tar there is: regular files in a fixed order,
no folders, no links, no extension headers. `tar --zstd -x` reads it, and there is little in it
that a hostile writer could use. Files with many zeros, which are sparse weights, lie in it packed
(`zeros.py`): entries of the type Z, their real size ahead, which tar knows nothing of.
"""

import os
import tarfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from .. import BundleError
from . import zeros
from .names import Names, problem

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
LEVEL = 9
#: Zstandard's window: how far back the stream may refer, and so the memory that reading takes.
WINDOW_LOG = 27
#: The type of an entry that is packed, and the bytes of the number ahead of it.
PACKED, AHEAD = b"Z", 8

Source = Path | bytes


@dataclass(frozen=True)
class Limits:
    """The most that is unpacked: entries, bytes in all, and bytes for each byte of the archive.

    There is no `ratio` where a manifest says how many bytes there are: some weights are all alike.
    """

    entries: int = 10_000
    bytes: int = 1 << 40
    ratio: int | None = 200


def pack(files: Mapping[str, Source], archive: Path, *, first: Sequence[str] = ()) -> None:
    """Write `files` by name: those of `first` first, the others sorted; time 0, owner 0, mode 644.

    The same files give the same bytes with one version of Zstandard. The archive is written
    aside and renamed.

    Raises:
        BundleError: a name is not fit for a bundle, a file is not a plain file or changes while
            it is read, or the archive cannot be written.
    """
    order = [*first, *sorted(files.keys() - set(first))]
    _refuse(order, archive)
    aside = archive.with_name(f".{archive.name}.part")
    try:
        with aside.open("wb") as raw:
            with _compressor().stream_writer(raw, closefd=False) as stream:
                for name in order:
                    _write(stream, name, files[name])
                stream.write(bytes(2 * BLOCK))
            raw.flush()
            os.fsync(raw.fileno())
        aside.replace(archive)
    except OSError as error:
        what = f"cannot write the archive: {error.strerror or error}"
        raise BundleError(what, where=error.filename or archive) from error
    finally:
        aside.unlink(missing_ok=True)


def _refuse(names: Sequence[str], archive: Path) -> None:
    known = Names()
    for name in names:
        refuse(name, known, archive)


def refuse(name: str, known: Names, archive: Path) -> None:
    """Raise a BundleError when a name is not fit for a bundle, or is one file with a known one."""
    why = problem(name)
    if why:
        raise BundleError(f"the name {name[:120]!r} {why}", where=archive)
    other = known.add(name)
    if other:
        raise BundleError(f"{other!r} and {name!r} would be one file", where=archive)


def _compressor() -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=WINDOW_LOG, enable_ldm=True, write_checksum=False
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _write(stream: zstandard.ZstdCompressionWriter, name: str, source: Source) -> None:
    if isinstance(source, bytes):
        stream.write(_header(name, len(source)) + source + _padding(len(source)))
        return
    if source.is_symlink() or not source.is_file():
        raise BundleError("only plain files are packed", where=source)
    real, packed = source.stat().st_size, zeros.worth(source)
    if packed is None:
        size, ahead, chunks = real, b"", _plain(source)
        stream.write(_header(name, size))
    else:
        size, ahead, chunks = AHEAD + packed, real.to_bytes(AHEAD, "little"), zeros.squeezed(source)
        stream.write(_header(name, size, PACKED) + ahead)
    left = size - len(ahead)
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            break
        stream.write(chunk)
    if left or source.stat().st_size != real:
        raise BundleError("the file changed while it was packed", where=source)
    stream.write(_padding(size))


def _plain(source: Path) -> Generator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.type = size, 0o644, 0, kind
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


@dataclass
class Entry:
    """One file of an archive; its bytes are read before the next entry is asked for.

    `stored` are the bytes that it has in the archive, more or fewer than `size` where it is packed.
    """

    name: str
    size: int
    stored: int
    packed: bool
    stream: BinaryIO
    archive: Path

    def chunks(self) -> Generator[bytes]:
        """Its bytes, a mebibyte at a time.

        Raises:
            BundleError: the archive ends before they do, or they are not packed as they should be.
        """
        left = self.stored - (AHEAD if self.packed else 0)
        where = f"{self.archive}: {self.name[:120]}"

        def read(size: int) -> bytes:
            nonlocal left
            if size > left:
                raise BundleError("a packed file is cut short", where=where)
            left -= size
            return _exactly(self.stream, size, self.archive)

        if self.packed:
            yield from zeros.restored(read, self.size, where)
        while left and not self.packed:
            yield read(min(CHUNK, left))
        if left or any(_exactly(self.stream, -self.stored % BLOCK, self.archive)):
            raise BundleError("something is hidden behind a file", where=where)


@contextmanager
def reading(archive: Path) -> Generator[Generator[Entry]]:
    """Open an archive; its entries come in order, and each must be read to its end.

    Raises:
        BundleError: it is no such archive, is cut short, or holds anything but plain files.
    """
    with _told(archive):
        raw = archive.open("rb")
    # no more is caught here: what fails where the entries are used is not the archive's fault
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
    with raw, decompressor.stream_reader(raw, read_across_frames=True) as stream:
        yield _entries(stream, archive)


@contextmanager
def _told(archive: Path) -> Generator[None]:
    try:
        yield
    except zstandard.ZstdError as error:
        what = f"not a sound archive: {error}"
        raise BundleError(what, where=archive, mend="fetch it again") from error
    except OSError as error:
        raise BundleError(f"cannot read: {error.strerror or error}", where=archive) from error


def _entries(stream: BinaryIO, archive: Path) -> Generator[Entry]:
    while any(block := _exactly(stream, BLOCK, archive)):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeError, ValueError) as error:
            raise BundleError(f"not a tar header: {error}", where=archive) from error
        packed = info.type == PACKED
        least = AHEAD if packed else 0
        if info.type not in (tarfile.REGTYPE, PACKED) or info.size < least:
            what = f"{info.name[:120]!r} is not a plain file (type {info.type!r})"
            raise BundleError(what, where=archive)
        ahead = int.from_bytes(_exactly(stream, least, archive), "little")
        size = ahead if packed else info.size
        yield Entry(info.name, size, info.size, packed, stream, archive)
    if any(_exactly(stream, BLOCK, archive)) or _read(stream, 1, archive):
        raise BundleError("data after the end of the archive", where=archive)


def _read(stream: BinaryIO, size: int, archive: Path) -> bytes:
    with _told(archive):
        return stream.read(size)


def _exactly(stream: BinaryIO, size: int, archive: Path) -> bytes:
    parts: list[bytes] = []
    while size:
        part = _read(stream, size, archive)
        if not part:
            raise BundleError("the archive is cut short", where=archive, mend="fetch it again")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
