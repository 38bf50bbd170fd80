"""`llmdeploy list`: the parts that are offered here, by whom, and their options."""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .. import ConfigError
from . import registry

_NAMES = {"ellipsis": "...", "NoneType": "None", "Ellipsis": "..."}
#: A section of a docstring in Google's style.
_SECTION = re.compile(r"(Args|Raises|Returns|Yields):")


def listing(kind: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Every part of a kind, or of all kinds: name, package, what it is, options.

    A part that cannot be loaded is listed with its `error`, not left out.

    Raises:
        ConfigError: no such kind, or two packages offer the same name.
    """
    if kind is not None and kind not in registry.KINDS:
        raise ConfigError(f"no kind {kind!r}", mend=f"one of {', '.join(registry.KINDS)}")
    kinds = registry.KINDS if kind is None else (kind,)
    return {kind: [_part(kind, name) for name in registry.names(kind)] for kind in kinds}


def _part(kind: str, name: str) -> dict[str, Any]:
    point = registry.names(kind)[name]
    record: dict[str, Any] = {"name": name, "package": registry.package(point), "at": point.value}
    try:
        part = registry.find(kind, name)
    except Exception as error:  # a third party's module may raise anything
        why = " ".join(str(error).split())
        return record | {"about": "", "details": "", "options": [], "error": why}
    about, details = _words(part)
    told = {"about": about, "details": details, "options": list(options(part)), "error": None}
    return record | told


def _words(part: Any) -> tuple[str, str]:
    """The first and the second paragraph of its docstring, unless a dataclass made that up."""
    text = inspect.getdoc(part) or ""
    if text.startswith(f"{getattr(part, '__name__', '')}("):
        return "", ""
    first, _, rest = text.partition("\n\n")
    second = "" if _SECTION.match(rest) else rest.partition("\n\n")[0]
    return " ".join(first.split()), " ".join(second.split())


def options(part: Any) -> Iterator[dict[str, Any]]:
    """The options of a part: a record's fields, else a function's keyword-only parameters.

    A backend names the record of its `[build.options]` in `accepts`, and in `refuses` the fields
    of it that it does not honour.
    """
    part, refused = getattr(part, "accepts", part), getattr(part, "refuses", ())
    fields: Mapping[str, FieldInfo] | None = getattr(part, "__pydantic_fields__", None)
    if fields is not None:
        yield from (_pydantic(*field) for field in fields.items() if field[0] not in refused)
    elif dataclasses.is_dataclass(part):
        yield from map(_dataclass, dataclasses.fields(part))
    elif inspect.isfunction(part):
        parameters = inspect.signature(part, eval_str=False).parameters.values()
        yield from (_parameter(one) for one in parameters if one.kind is one.KEYWORD_ONLY)


def _pydantic(name: str, field: FieldInfo) -> dict[str, Any]:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return _option(name, field.annotation, field.is_required(), default, field.description)


def _dataclass(field: dataclasses.Field[Any]) -> dict[str, Any]:
    required, default = False, field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is dataclasses.MISSING:
        required, default = True, None
    return _option(field.name, field.type, required, default, field.metadata.get("doc"))


def _parameter(one: inspect.Parameter) -> dict[str, Any]:
    required = one.default is one.empty
    return _option(one.name, one.annotation, required, None if required else one.default, None)


def _option(
    name: str, kind: Any, required: bool, default: Any, about: str | None
) -> dict[str, Any]:
    return {
        "name": name.replace("_", "-"),
        "type": _type(kind),
        "required": required,
        "default": TypeAdapter(Any).dump_python(default, mode="json", fallback=str),
        "about": about or "",
    }


def _type(kind: Any) -> str:
    """A type as it is written; what `Annotated` adds is checked by pydantic, not read by people."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inner[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type, inner))
    if origin is Literal:
        return " | ".join(map(repr, inner))
    name = getattr(origin or kind, "__name__", str(kind))
    return f"{name}[{', '.join(map(_type, inner))}]" if inner else _NAMES.get(name, name)


def show(parts: Mapping[str, list[dict[str, Any]]]) -> RenderableType:
    """The listing as people read it: a table a kind, a line an option."""
    tables = [_table(kind, lines) for kind, lines in parts.items() if lines]
    return Group(*tables) if tables else Text("nothing is offered")


def _table(kind: str, parts: list[dict[str, Any]]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in (kind, "from", "what it does, and its options"):
        grid.add_column(column, no_wrap=column == kind)
    for part in parts:
        about = Text(part["error"] or part["about"], style="red" if part["error"] else "")
        about.append(f" {part['details']}" if part["details"] else "", style="dim")
        grid.add_row(Text(part["name"], style="cyan"), Text(part["package"]), about)
        for option in part["options"]:
            grid.add_row("", "", _line(option))
    grid.add_section()
    return grid


def _line(option: Mapping[str, Any]) -> Text:
    value = "required" if option["required"] else f"= {option['default']!r}"
    text = Text("  ").append(option["name"], style="green").append(f" {value}")
    text.append(f"  {option['type']}", style="dim")
    return text.append(f"  {option['about']}" if option["about"] else "")
