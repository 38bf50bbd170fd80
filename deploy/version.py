"""Which of two versions is older, by Semantic Versioning 2.0, section 11, and by PEP 440.

What follows a hyphen comes before the release (`1.1.0-rc.1`), and so do Python's words without
one (`1.1.0rc1`, `1.1.0.dev2`); `1.1.0.post1`, and words that neither knows, come after it.
"""

import re
from collections.abc import Iterator

#: A rank, and of a number its count of digits and its digits: no length is too much for it.
Part = tuple[int, int, str]

_FORM = re.compile(r"v?([0-9.]*)([^-]*)-?(.*)", re.DOTALL)
_DEVELOPED, _BEFORE, _END, _NUMBER, _WORD = range(5)
#: PEP 440's words for what comes before a release, and the names that Semantic Versioning's use.
_EARLY = {"a": "alpha", "alpha": "alpha", "b": "beta", "beta": "beta", "c": "rc", "rc": "rc"}


def older(one: str, other: str) -> bool:
    """Whether `one` comes before `other`; what follows a `+` does not count."""
    return _key(one) < _key(other)


def _key(version: str) -> tuple[list[Part], list[Part]]:
    found = _FORM.match(version.partition("+")[0])
    release, attached, before = found.groups() if found else ("", version, "")
    tail = [*_attached(attached), *([(_BEFORE, 0, "")] if before else []), *_parts(before)]
    return _stripped(list(_parts(release))), [*tail, (_END, 0, "")]


def _attached(text: str) -> Iterator[Part]:
    for part in _parts(text.lower()):
        rank, _, word = part
        if rank == _WORD and word == "dev":
            yield _DEVELOPED, 0, ""
        elif rank == _WORD and word in _EARLY:
            yield _BEFORE, 0, ""
            yield _WORD, 0, _EARLY[word]
        else:
            yield part


def _parts(text: str) -> Iterator[Part]:
    """Numbers before words; `rc1` is a word and a number after it."""
    for part in re.findall(r"[0-9]+|[^0-9._]+", text):
        digits = part.lstrip("0")
        number = part[0] in "0123456789"
        yield (_NUMBER, len(digits), digits) if number else (_WORD, 0, part)


def _stripped(parts: list[Part]) -> list[Part]:
    """Without the zeros at its end: 1.0 is 1.0.0."""
    while parts and parts[-1] == (_NUMBER, 0, ""):
        parts.pop()
    return parts
