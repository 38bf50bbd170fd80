"""Why a stage is done again: what its record and the new one are not alike in."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .workspace import Stage

_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Longer values are not told, only that they are others.
_LONG = 40
#: More reasons than this are counted.
_MOST = 3
_NOTHING = "nothing"


def reason(old: Stage, new: Stage) -> str:
    """The reasons in a line: `other samples, max-length 32 -> 24`."""
    found = changed(old, new)
    if not found:
        return "its files are not as they were made"
    more = [f"{len(found) - _MOST} more"] if len(found) > _MOST else []
    return ", ".join([*found[:_MOST], *more])


def changed(old: Stage, new: Stage) -> tuple[str, ...]:
    """Each input, option and version that is not as it was, in words; empty where all are."""
    inputs = _differing(old.inputs, new.inputs)
    options = _differing(old.options, new.options)
    versions = _differing(old.versions, new.versions)
    return (*(f"other {name}" for name, _, _ in inputs), *map(_words, (*options, *versions)))


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Names of what differs and both values, tables within by `outer.inner`."""
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name, _NOTHING), new.get(name, _NOTHING)
        if isinstance(before, dict) and isinstance(after, dict):
            for inner, *values in _differing(before, after):  # a lone graph has no name
                yield ".".join(filter(None, (name, inner))), *values
        elif before != after:
            yield name, before, after


def _words(difference: tuple[str, Any, Any]) -> str:
    name, before, after = difference
    name = name.replace("_", "-")
    told = [str(value) for value in (before, after)]
    if any(len(value) > _LONG or _DIGEST.fullmatch(value) for value in told):
        return f"other {name}"
    return f"{name} {told[0]} -> {told[1]}"
