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
    named = {name: _token(config.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
    try:
        made = environment.from_string(template)
        return made.render(messages=list(messages), add_generation_prompt=True, **named)
    except Exception as error:
        what = f"the chat template fails: {' '.join(str(error).split())[:200]}"
        raise ConfigError(what, where=folder) from error


def _environment() -> Any:
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingError("jinja2 is not installed", mend="pip install jinja2") from error
    loops = ["jinja2.ext.loopcontrols"]
    made: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=loops
    )
    made.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = _now
    return made


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
