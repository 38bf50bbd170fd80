"""What the command line said over the file, kept in the workspace for the verbs that follow.

`export --opset 21 && build --int8 && bundle` ships opset 21 in INT8: a verb heeds what the verbs
before it on the path were told, but what the file says otherwise since then.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import Config
from .workspace import plain, write_json

FILE = "said.json"
#: The verbs in the order of the path; `release` is all of it, by the file alone.
PATH = ("export", "optimize", "calibrate", "build", "verify", "bundle")
Words = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A verb's options of the command line by name, and what the file says in the place of each."""

    verb: str = ""
    file: Words = field(default_factory=dict[str, Any])
    options: Words = field(default_factory=dict[str, Any])

    def heeding(self, workspace: Path) -> dict[str, Any]:
        """What the verbs before this one were told, the later over the earlier."""
        if self.verb not in PATH:
            return {}
        kept, before = _read(workspace), PATH[: PATH.index(self.verb)]
        return {
            name: value
            for verb in before
            for name, (value, over) in kept.get(verb, {}).items()
            if plain(self.file.get(name)) == over
        }

    def keep(self, workspace: Path) -> None:
        """Write it beside what the others were told."""
        if self.verb not in PATH:
            return
        told = {
            name: (value, self.file.get(name))
            for name, value in self.options.items()
            if value is not None
        }
        write_json(workspace / FILE, plain({"verbs": {**_read(workspace), self.verb: told}}))


def words(config: Config, places: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """What a file says at each option's place: whether it is written there, and its value."""
    return dict(_words(config, places))


def _words(config: Config, places: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    said = config.model_dump(mode="json")
    for name, (section, key) in places.items():
        table = getattr(config, section)
        yield name, (key in table.model_fields_set, said[section][key])
    yield "recover_minutes", said["passes"]


def _read(workspace: Path) -> dict[str, dict[str, list[Any]]]:
    """What was kept, as verb -> option -> its value and the file's; nothing that is unreadable."""
    try:
        told = json.loads((workspace / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    verbs = told.get("verbs") if isinstance(told, dict) else None
    if not isinstance(verbs, dict):
        return {}
    return {
        verb: {name: pair for name, pair in options.items() if _is_pair(pair)}
        for verb, options in verbs.items()
        if isinstance(options, dict)
    }


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2
