"""Rows of evaluation data: lines of a text file, two files line by line, and tables."""

import codecs
import csv
import io
from pathlib import Path
from typing import NamedTuple

from .. import ConfigError


class Row(NamedTuple):
    """A text, what is said of it (empty in a file of lines), and where both stand."""

    text: str
    gold: str
    where: str


def lines(path: Path, encoding: str) -> list[Row]:
    """The lines that are not blank; a line ends with a newline and with nothing else.

    Raises:
        ConfigError: the file cannot be read, is not text of that encoding, or has no such line.
    """
    found = enumerate(_lines(path, encoding), 1)
    return [Row(line, "", f"{path}:{number}") for number, line in found if line.strip()]


def beside(path: Path, encoding: str, other: Path, others: str) -> list[Row]:
    """The lines of a file with those of `other`, by their numbers; both may have blank ones.

    Raises:
        ConfigError: as of `lines`; one has fewer lines, or a blank one beside one that is not.
    """
    texts, golds = _lines(path, encoding), _lines(other, others)
    if len(texts) != len(golds):
        what = f"{len(golds)} labels for {len(texts)} texts"
        raise ConfigError(what, where=other, mend="give a line to each")
    rows: list[Row] = []
    for number, (text, gold) in enumerate(zip(texts, golds, strict=True), 1):
        if bool(text.strip()) != bool(gold.strip()):
            blank, full = (path, other) if gold.strip() else (other, path)
            what = f"a blank line, and one that is not in {full}"
            raise ConfigError(what, where=f"{blank}:{number}", mend="fill it, or blank both")
        if text.strip():
            rows.append(Row(text, gold, f"{other}:{number}"))
    return rows


def filled(path: Path, encoding: str) -> list[str]:
    """Every line of a file whose lines are counted.

    Raises:
        ConfigError: as of `lines`, or one is blank.
    """
    found = _lines(path, encoding)
    blank = next((number for number, line in enumerate(found, 1) if not line.strip()), None)
    if blank is not None:
        raise ConfigError("a blank line", where=f"{path}:{blank}", mend="fill it")
    return found


def table(path: Path, encoding: str) -> list[Row]:
    """The rows of a TSV (no quoting) or a CSV, whose first row may be a heading.

    Raises:
        ConfigError: as of `lines`, or a row has not two columns.
    """
    if path.suffix == ".csv":
        rows = _records(path, encoding)
    else:
        rows = [(row.text.rsplit("\t", 1), row.where) for row in lines(path, encoding)]
    for cells, where in rows:
        if len(cells) != 2:
            raise ConfigError("not a text and its class", where=where, mend="give two columns")
    return [Row(cells[0], cells[1], where) for cells, where in rows]


def _records(path: Path, encoding: str) -> list[tuple[list[str], str]]:
    reader = csv.reader(io.StringIO(_text(path, encoding), newline=""), strict=True)
    try:
        return [(row, f"{path}:{reader.line_num}") for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        where = f"{path}:{reader.line_num}"
        raise ConfigError(f"not CSV: {error}", where=where, mend="quote its texts") from error


def _lines(path: Path, encoding: str) -> list[str]:
    """The lines of a file, without the blank ones at its end."""
    found = io.StringIO(_text(path, encoding), newline=None).read().split("\n")
    while not found[-1].strip():
        found.pop()
    return found


def _text(path: Path, encoding: str) -> str:
    try:
        # a byte order mark is no part of the first text
        plain = codecs.lookup(encoding).name == "utf-8"
        text = path.read_bytes().decode("utf-8-sig" if plain else encoding)
    except OSError as error:
        raise ConfigError(f"cannot read evaluation data: {error.strerror}", where=path) from error
    except (UnicodeDecodeError, LookupError) as error:
        raise ConfigError(
            f"evaluation data is not {encoding} text", where=path, mend="set its encoding"
        ) from error
    if not text.strip():
        raise ConfigError("evaluation data is empty", where=path)
    return text
