"""What passes of a stage made before it was killed: taken as it is by the next run."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...passes import save
from ..config import PassTable
from ..workspace import digest_of, plain, write_json

RECORD = "made.json"


@dataclass(frozen=True)
class Kept:
    """A folder of its own for each pass; `key` is the digest of all that the stage starts from."""

    folder: Path
    key: str = ""

    def at(self, index: int) -> Path:
        """Where the model of a pass lies."""
        return self.folder / str(index)

    def found(self, tables: Sequence[PassTable]) -> dict[str, Any] | None:
        """What is told of the last of these passes, None where it was not made from the same."""
        try:
            record = json.loads((self.at(len(tables) - 1) / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record["told"] if record.get("key") == self._key(tables) else None

    def put(self, tables: Sequence[PassTable], model: ir.Model, told: dict[str, Any]) -> None:
        """Keep the model of the last of these passes: whole, or not at all.

        A training that is there began with what was kept before: a plan that is timed anew may
        have other widths.
        """
        place = self.at(len(tables) - 1)
        aside = place.with_name(f".{place.name}.part")
        for old in (aside, place, *self.folder.glob("training-*")):
            shutil.rmtree(old, ignore_errors=True)
        save(model, aside)
        write_json(aside / RECORD, {"key": self._key(tables), "told": plain(told)})
        aside.rename(place)

    def training(self, tables: Sequence[PassTable]) -> Path:
        """Where the state of a training lies, by what it starts from."""
        return self.folder / f"training-{self._key(tables)[:16]}"

    def clear(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self, tables: Sequence[PassTable]) -> str:
        return digest_of([self.key, [table.model_dump() for table in tables]])
