"""What does not fit a schema, in plain words: which key, what it is and what is wanted instead."""

import reprlib

from pydantic import ValidationError

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def is_unknown(error: ValidationError) -> bool:
    """Whether the first problem is a key that the schema does not have."""
    return error.errors()[0]["type"] in _UNKNOWN


def misfit(error: ValidationError, top: str = "the file", *, dashes: bool = False) -> str:
    """The first key that does not fit, `top` where it is none of them, and what is wrong with it.

    With `dashes` fields are named as a user writes them: min-cosine for min_cosine.
    """
    key = ".".join(str(part) for part in error.errors()[0]["loc"])[:200] or top
    key = key.replace("_", "-") if dashes else key
    return f"unknown key {key}" if is_unknown(error) else f"{key}: {wanted(error)[:300]}"


def wanted(error: ValidationError) -> str:
    """What the first wrong value is and what is wanted instead."""
    problem = error.errors()[0]
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return "it is missing"
    words = problem["msg"][:1].lower() + problem["msg"][1:]
    if not words.startswith("input "):
        return words
    words = words.removeprefix("input ").partition(", unable to")[0]
    return f"{reprlib.repr(problem['input'])} {words}"
