"""Tensors on disk: checked, cast and copied in blocks, never a whole one in memory."""

import os
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ... import ExportError
from .stored import Stored

BLOCK = 1 << 23  # bytes read at a time
_ALIGN = 4096  # a page, so that a runtime can map the tensor; ONNX's own advice
_FICLONE = 0x40049409  # linux/fs.h
DTYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I16": ir.DataType.INT16,
    "I8": ir.DataType.INT8,
    "U64": ir.DataType.UINT64,
    "U32": ir.DataType.UINT32,
    "U16": ir.DataType.UINT16,
    "U8": ir.DataType.UINT8,
    "BOOL": ir.DataType.BOOL,
}
#: The floats that a model can be exported in, as options and torch name them.
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: Bits of the exponent, all set in NaN and infinity, of dtypes numpy is slow or unable to test.
_EXPONENT = {ir.DataType.FLOAT16: 0x7C00, ir.DataType.BFLOAT16: 0x7F80}
_WIDER = {
    ir.DataType.FLOAT16: "pass --dtype bfloat16 or float32",
    ir.DataType.BFLOAT16: "pass --dtype float32",
}


def blocks(tensor: Stored) -> Generator[NDArray[np.generic]]:
    """The elements of a stored tensor, flat, a block at a time, in its own dtype.

    Raises:
        ExportError: the file ended early, or a dtype ONNX has no name for.
    """
    if tensor.dtype not in DTYPES:
        raise ExportError(
            f"tensor {tensor.name} is {tensor.dtype}, which has no ONNX dtype", where=tensor.file
        )
    dtype = DTYPES[tensor.dtype].numpy()
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.offset)
        left = tensor.length
        while left:
            data = file.read(min(BLOCK, left))
            if not data:
                raise ExportError(f"tensor {tensor.name} is truncated", where=tensor.file)
            left -= len(data)
            yield np.frombuffer(data, dtype)


def finite(tensor: Stored, block: NDArray[np.generic]) -> NDArray[np.generic]:
    """The block as it is.

    Raises:
        ExportError: it holds NaN or infinity.
    """
    if not _all_finite(block, DTYPES[tensor.dtype]):
        raise ExportError(
            f"tensor {tensor.name} holds NaN or infinity",
            where=tensor.file,
            mend="take a checkpoint from before the training diverged",
        )
    return block


def _all_finite(block: NDArray[np.generic], kind: ir.DataType) -> bool:
    if kind in _EXPONENT:
        bits = block.view(np.uint16) & _EXPONENT[kind]
        return bool((bits != _EXPONENT[kind]).all())
    return not kind.is_floating_point() or bool(np.isfinite(block).all())


def check(tensor: Stored) -> None:
    """Read a tensor through once; raises ExportError when it holds NaN or infinity."""
    for block in blocks(tensor):
        finite(tensor, block)


def cast(tensor: Stored, dtype: ir.DataType) -> Generator[NDArray[np.generic]]:
    """A stored tensor's elements as `dtype`, checked, a block at a time.

    Raises:
        ExportError: NaN or infinity, before the cast or made by it (float16 ends at 65504, and
            bfloat16 just below float32).
    """
    for block in blocks(tensor):
        finite(tensor, block)
        with np.errstate(over="ignore"):
            made = block.astype(dtype.numpy())
        if not _all_finite(made, dtype):
            raise ExportError(
                f"tensor {tensor.name} does not fit {made.dtype}",
                where=tensor.file,
                mend=_WIDER.get(dtype, ""),
            )
        yield made


def same(one: Stored, other: Stored) -> bool:
    """Whether two stored tensors are equal, byte for byte."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    pairs = zip(blocks(one), blocks(other), strict=True)
    return all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in pairs)


class DataFile:
    """`model.onnx.data`: tensors appended one after the other, a page's boundary between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0

    def append(self, arrays: Iterable[NDArray[np.generic]]) -> tuple[int, int]:
        """Append arrays as one tensor; its offset and length in bytes."""
        start = -(-self._end // _ALIGN) * _ALIGN
        with self.path.open("r+b" if self._end else "wb") as file:
            file.seek(start)
            for array in arrays:
                file.write(np.ascontiguousarray(array).view(np.uint8).data)
            self._end = file.tell()
        return start, self._end - start


def clone(source: Path, target: Path) -> str:
    """Copy a file without its bytes passing through this process where the system can.

    Returns how: `reflink` (shared until written), `copy_file_range` or `copy`.
    """
    with source.open("rb") as read, target.open("wb") as write:
        if _reflink(read.fileno(), write.fileno()):
            return "reflink"
        if _ranges(read.fileno(), write.fileno(), os.fstat(read.fileno()).st_size):
            return "copy_file_range"
    shutil.copyfile(source, target)
    return "copy"


def _reflink(source: int, target: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _ranges(source: int, target: int, size: int) -> bool:
    if not hasattr(os, "copy_file_range"):
        return False
    done = 0
    try:
        while done < size:
            moved = os.copy_file_range(source, target, size - done, done, done)
            if moved == 0:
                return False
            done += moved
    except OSError as error:
        if done or error.errno == 28:  # ENOSPC is the caller's to tell
            raise
        return False
    return True
