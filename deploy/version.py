"""Which of two versions is older, by the order of Semantic Versioning 2.0, section 11."""

import re

Part = tuple[int, int, str]


def older(one: str, other: str) -> bool:
    """Whether `one` comes before `other`; what follows a `+` does not count."""
    return _key(one) < _key(other)


def _key(version: str) -> tuple[list[Part], bool, list[Part]]:
    release, _, before = version.partition("+")[0].partition("-")
    return _stripped(_parts(release)), not before, _parts(before)


def _parts(text: str) -> list[Part]:
    """Numbers before words; `0rc1` is a number and a word after it."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.findall(r"\d+|[^\d._]+", text)
    ]


def _stripped(parts: list[Part]) -> list[Part]:
    """Without the zeros at its end: 1.0 is 1.0.0."""
    while parts and parts[-1] == (0, 0, ""):
        parts.pop()
    return parts
