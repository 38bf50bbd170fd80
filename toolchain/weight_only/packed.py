"""Levels on disk, two of four bits a byte, until the graph that reads them is saved."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_TYPES = {4: ir.DataType.INT4, 8: ir.DataType.INT8}


class Scratch:
    """A file that levels are written to, one weight after the other."""

    def __init__(self, path: Path, bits: int) -> None:
        self._path, self._type = path, _TYPES[bits]
        self._file = path.open("wb")

    def write(self, levels: NDArray[np.int8], name: str) -> ir.ExternalTensor:
        """Keep the levels of one weight; the tensor reads them from the file."""
        place, four = self._file.tell(), self._type == ir.DataType.INT4
        data = np.ascontiguousarray(packed(levels) if four else levels)
        self._file.write(data.data)
        self._file.flush()
        return ir.ExternalTensor(
            self._path.name,
            place,
            data.nbytes,
            self._type,
            shape=ir.Shape(levels.shape),
            name=f"{name}.levels",
            base_dir=self._path.parent,
        )

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def packed(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Levels of -8 to 7 as ONNX packs them: the first of a pair in the low half of the byte."""
    flat = levels.reshape(-1).view(np.uint8) & np.uint8(15)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return flat[0::2] | (flat[1::2] << np.uint8(4))
