"""A conversation as the prompt that a model was trained on, by the template of its tokenizer.

The template comes with the checkpoint and is a program: it runs in Jinja's sandbox, which lets it
read the messages and nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from .. import ConfigError, MissingError

CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
#: What a template may write by its name: transformers gives it what the tokenizer has of these.
TOKENS = tuple(f"{one}_token" for one in ("bos", "eos", "pad", "unk", "sep", "cls", "mask"))
#: More than any template takes; a conversation is cut by no one.
MAX_CHARACTERS = 1 << 20

Message = Mapping[str, Any]


def prompt(folder: Path, messages: Sequence[Message]) -> str:
    """The prompt of a conversation that the model is to go on, special tokens in it.

    A message has a `role` (system, user, assistant) and `content`.

    Raises:
        ConfigError: the tokenizer has no template, or the template refuses the messages.
        MissingError: jinja2 is not installed.
    """
    config = _config(folder)
    template = _template(folder, config)
    if not template or len(template) > MAX_CHARACTERS:
        raise ConfigError("the tokenizer has no chat template", where=folder, mend="give a prompt")
    environment = _environment()
    given: dict[str, Any] = {name: _token(config.get(name)) for name in TOKENS}
    # None, as transformers has it: `tools is not none` is true of what is not defined
    given |= {"tools": None, "documents": None, "add_generation_prompt": True}
    try:
        return environment.from_string(template).render(messages=list(messages), **given)
    except Exception as error:
        what = f"the chat template fails: {' '.join(str(error).split())[:200]}"
        raise ConfigError(what, where=folder) from error


def _environment() -> Any:
    try:
        from jinja2 import nodes
        from jinja2.ext import Extension
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingError("jinja2 is not installed", mend="pip install jinja2") from error

    class Generation(Extension):
        """The tag by which training finds what the model says: its text as it stands."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    made: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    made.filters["tojson"] = _json
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = _now
    return made


def _json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson` with transformers' options, in its order."""
    options: dict[str, Any] = {"ensure_ascii": ensure_ascii, "indent": indent}
    return json.dumps(value, separators=separators, sort_keys=sort_keys, **options)


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _template(folder: Path, config: Mapping[str, Any]) -> str:
    path = folder / TEMPLATE
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    found: Any = config.get("chat_template", "")
    if isinstance(found, list):  # several, by name
        named = [each for each in found if isinstance(each, dict)]
        found = next((e.get("template") for e in named if e.get("name") == "default"), "")
    return found if isinstance(found, str) else ""


def _token(value: Any) -> str:
    """A special token as tokenizer_config.json has it: a string, or a record of one."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""
