"""Files of text: decoded whole or refused, never guessed at."""

import codecs
import re
from pathlib import Path

from .. import ConfigError

#: Control characters that text files do hold.
_PLAIN = {9, 10, 12, 13, 27}
_LOOKED_AT = 65536


def read_text(path: Path, encoding: str) -> str:
    """A file's text.

    Raises:
        ConfigError: it cannot be read, is binary, is not text in that encoding, or there is no
            such encoding.
    """
    data = _bytes(path)
    try:
        plain = codecs.lookup(encoding).name == "utf-8"
        text = data.decode("utf-8-sig" if plain else encoding)
    except LookupError as error:
        raise ConfigError(
            f"no encoding {encoding!r}", where="[calibration] encoding", mend="for example utf-8"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not text in {encoding} (byte {error.start})",
            where=path,
            mend="set [calibration] encoding, for example latin-1, or name a text file",
        ) from error
    head = text[:_LOOKED_AT]
    odd = sum(ord(letter) < 32 and ord(letter) not in _PLAIN for letter in head)
    if "\x00" in head or odd > len(head) // 100:
        raise ConfigError("a binary file, not text", where=path, mend="name a text file")
    return text


def read_lines(path: Path, field: str | None, encoding: str) -> list[str]:
    """A sample a line.

    Raises:
        ConfigError: a field is asked of plain lines, or the file is not text.
    """
    if field is not None:
        raise ConfigError(
            f"a file of lines has no field {field!r}",
            where=path,
            mend="leave [calibration] field out, or name a .jsonl, .csv or .tsv file",
        )
    return [line.strip() for line in lines_of(read_text(path, encoding))]


def lines_of(text: str) -> list[str]:
    """Lines as files have them: str.splitlines cuts at what may stand within one as well."""
    return re.split("\r\n|\n|\r", text)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=path, mend="mend its permissions"
        ) from error
