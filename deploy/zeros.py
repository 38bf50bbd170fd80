"""Weights with many zeros, as they travel: a bit an item that says which are none, then the others.

A file is cut into pieces. Each starts with the bytes of its items, 0 where it lies as it is; then
come the bits of all items, and what is not zero, first bytes first: the exponents of floats are
alike, their other bytes are noise. What comes out is what went in, bit by bit; -0.0 is no zero.
"""

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import BundleError

PIECE = 1 << 20
#: Bytes of an item: int8, 16 and 32 bits.
ITEMS = (1, 2, 4)
#: Items are taken eight at a time, a byte of bits.
WHOLE = 8 * max(ITEMS)
#: A piece that is not this much smaller lies as it is; so does a file, of more than its zeros.
WORTH, WORTH_OF_FILE = 0.75, 0.95

Bytes = NDArray[np.uint8]


def squeezed(path: Path) -> Generator[bytes]:
    """The pieces of a file, each the smaller way.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield _squeezed(piece)


def worth(path: Path) -> int | None:
    """The bytes of a squeezed file, None where that is not worth it."""
    size = path.stat().st_size
    if size < PIECE:
        return None
    found = sum(map(len, squeezed(path)))
    return found if found < WORTH_OF_FILE * size else None


def _squeezed(piece: bytes) -> bytes:
    array = np.frombuffer(piece, np.uint8)
    if not len(array) % WHOLE:
        size, item = min((_size(array, item), item) for item in ITEMS)
        if size < WORTH * len(piece):
            items = array.view(f"<u{item}")
            there = items != 0
            planes = items[there].view(np.uint8).reshape(-1, item).T[::-1]
            return bytes([item]) + np.packbits(there).tobytes() + planes.tobytes()
    return b"\0" + piece


def _size(array: Bytes, item: int) -> float:
    items = array.view(f"<u{item}")
    return len(items) / 8 + np.count_nonzero(items) * item


def restored(read: Callable[[int], bytes], size: int, where: str) -> Generator[bytes]:
    """The `size` bytes of a file again, a piece at a time, from what `read` gives of its pieces.

    Raises:
        BundleError: a piece says what no writer says.
    """
    while size:
        length = min(PIECE, size)
        item = read(1)[0]
        if not item:
            yield read(length)
        elif item not in ITEMS or length % WHOLE:
            raise BundleError(f"no piece of a file has items of {item} bytes", where=where)
        else:
            yield _restored(read, length, item)
        size -= length


def _restored(read: Callable[[int], bytes], length: int, item: int) -> bytes:
    count = length // item
    there = np.unpackbits(np.frombuffer(read(count // 8), np.uint8)).astype(bool)
    planes = np.frombuffer(read(int(there.sum()) * item), np.uint8).reshape(item, -1)
    made = np.zeros((count, item), np.uint8)
    made[there] = planes[::-1].T
    return made.tobytes()
