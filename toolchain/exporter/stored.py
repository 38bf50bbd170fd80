"""Where each tensor of a safetensors checkpoint lies on disk; its bytes are never read here.

Format: https://huggingface.co/docs/safetensors (8 bytes header length, JSON header, data).
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ... import ExportError
from ..checkpoint import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: Bytes of one element, by safetensors' dtype name.
ITEM = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
_HEADER_LIMIT = 100_000_000
_AGAIN = "download the checkpoint again"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: `offset` bytes from its start, `length` bytes, row-major."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def stored(folder: Path) -> dict[str, Stored]:
    """Every tensor of the checkpoint by its name, one file or sharded.

    Raises:
        ExportError: a file or a tensor that the index names is missing, or a file is truncated
            or no safetensors file.
    """
    single = folder / SINGLE
    if single.is_file():
        return read_header(single)
    weight_map: Mapping[str, str] = read_json(folder / INDEX).get("weight_map", {})
    if not weight_map:
        raise ExportError(f"neither {SINGLE} nor {INDEX}", where=folder, mend=_AGAIN)
    found: dict[str, Stored] = {}
    for name in sorted(set(weight_map.values())):
        path = folder / name
        if Path(name).name != name:
            raise ExportError(f"the index names {name}, outside the folder", where=folder / INDEX)
        if not path.is_file():
            raise ExportError(f"shard {name} is missing", where=folder, mend=_AGAIN)
        found |= read_header(path)
    missing = sorted(weight_map.keys() - found.keys())
    if missing:
        where = folder / weight_map[missing[0]]
        raise ExportError(f"tensor {missing[0]} is missing", where=where, mend=_AGAIN)
    return found


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file, checked against the file's size.

    Raises:
        ExportError: the file is truncated, or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _HEADER_LIMIT:
            raise ExportError("not a safetensors file", where=path, mend=_AGAIN)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            data = 8 + length
            tensors = {name: _tensor(name, path, data, entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError("a corrupt safetensors header", where=path, mend=_AGAIN) from error
    end = max((one.offset + one.length for one in tensors.values()), default=8 + length)
    if end != size:
        state = "truncated" if end > size else "longer than its header says"
        raise ExportError(
            f"{state}: {size} bytes where {end} were expected", where=path, mend=_AGAIN
        )
    return tensors


def _tensor(name: str, path: Path, data: int, entry: Mapping[str, Any]) -> Stored:
    begin, end = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    dtype = entry["dtype"]
    if min(begin, *shape, 0) < 0 or (dtype in ITEM and end - begin != prod(shape) * ITEM[dtype]):
        raise ValueError(name)
    return Stored(name, path, dtype, shape, data + begin, end - begin)
