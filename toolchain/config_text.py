"""llmdeploy.toml as text: every key of every section with its value and its meaning."""

import json
import re
from collections.abc import Mapping

from .config import Config
from .meanings import SECTIONS, Meaning

#: Where the meaning of a key starts, unless its value is longer.
_COLUMN = 40
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_UNSAMPLED = """\
# YOURS TO FILL IN: real inputs as the model will meet them; without them INT8 is refused.
# 128 to 512 are enough. Never the labelled data that [evaluation] scores.
"""


def text(chosen: Mapping[str, Mapping[str, object]]) -> str:
    """All sections in order; `chosen` gives, by section, the keys that are not left at default."""
    parts = [_section(name, chosen.get(name, {})) for name in SECTIONS]
    return "\n".join((parts[0], _passes(), *parts[1:]))


def _section(name: str, chosen: Mapping[str, object]) -> str:
    purpose, keys = SECTIONS[name]
    record = getattr(Config(), name)
    defaults = {key: getattr(record, key.replace("-", "_")) for key in keys}
    lines = [_key(key, keys[key], chosen.get(key), defaults[key]) for key in keys]
    note = _UNSAMPLED if name == "calibration" else ""
    return f"# {purpose}\n[{name}]\n{note}{''.join(lines)}"


def _key(key: str, meaning: Meaning, value: object, default: object) -> str:
    shown = default if meaning.example is None else meaning.example
    line = f"# {key} = {toml(shown)}" if value is None else f"{key} = {toml(value)}"
    return f"{line:<{_COLUMN}}  # {meaning.text}\n"


def _passes() -> str:
    head = "# The rewrites of the graph, in order; `llmdeploy list passes` shows their options.\n"
    return head + "".join(f'[[passes]]\nuse = "{table.use}"\n' for table in Config().passes)


def toml(value: object) -> str:
    """A value as TOML writes it: str, bool, int, float, sequences, mappings."""
    match value:
        case str():
            # JSON's escapes are TOML's; only DEL must be escaped on top.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        case Mapping():
            pairs = ", ".join(f"{toml_key(key)} = {toml(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(toml(item) for item in value)}]"
        case _:
            return json.dumps(value)


def toml_key(key: object) -> str:
    """A key, quoted only where TOML asks for it."""
    text = str(key)
    return text if _BARE.fullmatch(text) else toml(text)
