"""A path in a configuration: a path, or `package:NAME/inner` inside an installed package."""

import importlib.util
from pathlib import Path

from .. import ConfigError, MissingError

PREFIX = "package:"


def resolve(text: str, folder: Path) -> Path:
    """Where `text` lies; relative paths start at `folder`. The package is located, never imported.

    Raises:
        MissingError: the package is not installed.
        ConfigError: the path leaves the package.
    """
    if not text.startswith(PREFIX):
        return folder / Path(text).expanduser()
    name, _, inner = text.removeprefix(PREFIX).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(
            f"the package {name} is not installed", where=text, mend=f"pip install {name}"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / inner).resolve()
    if not path.is_relative_to(root):
        raise ConfigError(f"{text} leaves its package", mend="name a path inside it")
    return path
