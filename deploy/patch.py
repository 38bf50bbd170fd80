"""A file as its difference from an older one: Zstandard frames with the old bytes as dictionary.

A patch is a sequence of blocks, each a length (8 bytes, little-endian) and a frame that gives up
to `BLOCK` bytes. Its dictionary is the old file around the same place, so that memory is bounded
whatever the file's size.
"""

import struct
from collections.abc import Generator
from pathlib import Path

import zstandard

from .. import BundleError

BLOCK = 32 << 20
#: How far before and after a block's place the old file is looked at.
MARGIN = 16 << 20
LEVEL = 9
#: Tables with a place for every byte of the dictionary: with the level's own, most of it is lost.
TABLE_LOG = 25
_LENGTH = struct.Struct("<Q")


def make(old: Path, new: Path, patch: Path) -> int:
    """Write the patch that turns `old` into `new`; its size in bytes."""
    with new.open("rb") as source, patch.open("wb") as target:
        for index in range(-(-new.stat().st_size // BLOCK)):
            block = source.read(BLOCK)
            parameters = zstandard.ZstdCompressionParameters.from_level(
                LEVEL, window_log=27, hash_log=TABLE_LOG, chain_log=TABLE_LOG
            )
            compressor = zstandard.ZstdCompressor(
                dict_data=_dictionary(old, index), compression_params=parameters
            )
            frame = compressor.compress(block)
            target.write(_LENGTH.pack(len(frame)) + frame)
    return patch.stat().st_size


def apply(old: Path, patch: Path, new: Path, size: int) -> None:
    """Write `new`, of `size` bytes, from the old file and its patch.

    Raises:
        BundleError: the patch is not of this old file, or gives more than `size` bytes.
    """
    written = 0
    try:
        with new.open("xb") as target:
            for index, frame in enumerate(_frames(patch)):
                most = min(BLOCK, size - written)
                if zstandard.frame_content_size(frame) > most:
                    raise BundleError("a patch gives more than it says", where=patch)
                decompressor = zstandard.ZstdDecompressor(
                    dict_data=_dictionary(old, index), max_window_size=1 << 27
                )
                block = decompressor.decompress(frame, max_output_size=max(most, 1))
                target.write(block)
                written += len(block)
    except zstandard.ZstdError as error:
        raise BundleError(f"a patch does not fit its file: {error}", where=patch) from error
    if written != size:
        raise BundleError("a patch gives less than it says", where=patch)


def _frames(patch: Path) -> Generator[bytes]:
    with patch.open("rb") as source:
        while head := source.read(_LENGTH.size):
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
            # A frame is never much longer than what it gives.
            frame = source.read(length) if 0 < length <= 2 * BLOCK else b""
            if not frame or len(frame) != length:
                raise BundleError("a patch is cut short", where=patch, mend="fetch it again")
            yield frame


def _dictionary(old: Path, index: int) -> zstandard.ZstdCompressionDict:
    start = max(0, index * BLOCK - MARGIN)
    with old.open("rb") as file:
        file.seek(start)
        data = file.read((index + 1) * BLOCK + MARGIN - start)
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
