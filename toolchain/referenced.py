"""weights.json: where an export's weights lie when they were left in the checkpoint.

Readers of ONNX rightly refuse data outside a model's folder. Only an export of our own workspace
is read with another folder for its weights, and only while the safetensors files there are those
that it was made from.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import ExportError

FILE = "weights.json"
_AGAIN = "export again"


class Weights(BaseModel):
    """The folder that the external data of model.onnx is relative to, and its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    folder: str
    #: File name -> sha256 over its size and safetensors header.
    files: dict[str, str]


def leave(folder: Path, checkpoint: Path, files: Iterable[str]) -> None:
    """Note in `folder` that its weights are these files of the checkpoint."""
    place = checkpoint.resolve()
    marks = {name: _mark(place / name) for name in files}
    text = Weights(folder=str(place), files=marks).model_dump_json(indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def weights_of(folder: Path) -> Path | None:
    """The folder that an export's weights were left in; None when it holds them itself.

    Raises:
        ExportError: weights.json cannot be read, or the files are gone or others.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        record = Weights.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ExportError("weights.json does not fit", where=path, mend=_AGAIN) from error
    for name, mark in record.files.items():
        file = Path(record.folder) / name
        if Path(name).name != name or not file.is_file():
            raise ExportError(f"the weights {name} are gone", where=record.folder, mend=_AGAIN)
        if _mark(file) != mark:
            raise ExportError(f"the weights {name} were changed", where=record.folder, mend=_AGAIN)
    return Path(record.folder)


def _mark(path: Path) -> str:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, path.stat().st_size))
    return hashlib.sha256(header + str(path.stat().st_size).encode()).hexdigest()
