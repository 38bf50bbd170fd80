"""What the command line said over the file, kept in the workspace for the verbs that follow.

`export --opset 21 && build --int8 && bundle` ships opset 21 in INT8: a verb heeds what the verbs
before it on the path were told, unless the configuration has been changed since.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import Config
from .workspace import digest_of, plain, write_json

FILE = "said.json"
#: The verbs in the order of the path; `release` is all of it, by the file alone.
PATH = ("export", "optimize", "calibrate", "build", "verify", "bundle")


@dataclass(frozen=True)
class Said:
    """A verb's options of the command line, by name, and the digest of the file they go over."""

    verb: str = ""
    config: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def heeding(self, workspace: Path) -> dict[str, Any]:
        """What the verbs before this one were told, the later over the earlier."""
        if self.verb not in PATH:
            return {}
        kept = _read(workspace, self.config)
        before = PATH[: PATH.index(self.verb)]
        return {name: value for verb in before for name, value in kept.get(verb, {}).items()}

    def keep(self, workspace: Path) -> None:
        """Write it beside what the others were told."""
        if self.verb not in PATH:
            return
        kept = _read(workspace, self.config)
        options = {name: value for name, value in self.options.items() if value is not None}
        told = {"config": self.config, "verbs": {**kept, self.verb: options}}
        write_json(workspace / FILE, plain(told))


def digest(config: Config) -> str:
    """The digest of a configuration as its file says it."""
    return digest_of(config.model_dump(mode="json"))


def _read(workspace: Path, config: str) -> dict[str, dict[str, Any]]:
    """What was kept for this configuration; nothing where it was another, or cannot be read."""
    try:
        told = json.loads((workspace / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(told, dict) or told.get("config") != config:
        return {}
    return {verb: dict(options) for verb, options in told.get("verbs", {}).items()}
