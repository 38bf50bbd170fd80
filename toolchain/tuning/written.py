"""The configuration that makes a chosen point again, as a file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import Error
from ..config import Config, load
from ..config_text import toml, toml_key
from ..paths import PREFIX
from ..workspace import write_text
from .limits import Limits

#: Keys that hold paths, by section: they are relative to the file's own folder.
PATHS = {
    "model": ("checkpoint",),
    "calibration": ("samples",),
    "evaluation": ("samples", "labels"),
    "tune": ("samples", "labels"),
    "gate": ("last-release",),
    "bundle": ("sign", "certificate", "chain"),
}


def gated(config: Config, limits: Limits, evaluated: bool) -> Config:
    """The configuration with the limits as gates; a drop is one of the outputs without a metric."""
    asked = dict(limits.asked)
    drop = asked.pop("max_drop", None)
    if drop is not None and evaluated:
        asked["max_score_drop"] = drop
    elif drop is not None:
        asked["min_cosine"] = max(config.gate.min_cosine or -1.0, 1 - drop)
    return config.model_copy(update={"gate": config.gate.model_copy(update=asked)})


def write(config: Config, path: Path, head: str) -> Config:
    """Write a configuration, every key that is not at its default; it is read again and given.

    Raises:
        Error: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text(config, path.parent, head))
    except OSError as error:
        mend = "mend the permissions, or pass --output FILE"
        raise Error(f"cannot write: {error.strerror}", where=path, mend=mend) from error
    return load(path)


def text(config: Config, folder: Path, head: str) -> str:
    """The file's text: a comment, then each section."""
    whole = config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    if not config.passes:  # unsaid they would be the usual ones
        lines += ["", "passes = []"]
    for name, table in whole.items():
        if name != "passes":
            lines += ["", f"[{name}]", *_keys(_placed(name, table, config, folder))]
    for table in config.passes:
        lines += ["", "[[passes]]", *_keys({"use": table.use, **(table.model_extra or {})})]
    return "\n".join(lines) + "\n"


def _keys(table: Mapping[str, Any]) -> list[str]:
    return [f"{toml_key(key)} = {toml(value)}" for key, value in table.items() if value is not None]


def _placed(section: str, table: Mapping[str, Any], config: Config, folder: Path) -> dict[str, Any]:
    """A table with its paths as the new folder sees them."""
    made = dict(table)
    if folder.resolve() == config.folder.resolve():
        return made
    for key in PATHS.get(section, ()):
        value = made.get(key)
        if isinstance(value, list):
            made[key] = [_moved(each, config, folder) for each in value]
        elif value:
            made[key] = _moved(str(value), config, folder)
    return made


def _moved(path: str, config: Config, folder: Path) -> str:
    """A path of the configuration as `folder` sees it; what is no file here stays as it is."""
    if path.startswith(PREFIX) or not config.path(path).exists():
        return path
    return Path(os.path.relpath(config.path(path), folder)).as_posix()
