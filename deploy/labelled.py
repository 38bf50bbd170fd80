"""Labelled evaluation data, read from the plain files people keep it in."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError


@dataclass(frozen=True)
class Labelled:
    """Texts to run, the items they make and the gold of each.

    An item is a text, or a pair of texts when `pairs` [items, 2] indexes them. What is drawn
    anew in a bootstrap is a text when items share texts, else an item. Where the samples are
    arrays, `arrays` holds them by input name, a sample a row, and `texts` their numbers.
    """

    texts: tuple[str, ...]
    gold: NDArray[Any]
    pairs: NDArray[np.intp]
    shared: bool = False
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])


def pairs(samples: Path, encoding: str) -> Labelled:
    """Read `gold<TAB>a<TAB>b` lines; a pair without gold is unlabelled and left out."""
    texts: list[str] = []
    gold: list[float] = []
    for number, line in enumerate(_lines(samples, encoding), 1):
        parts = line.split("\t")
        if len(parts) < 3:
            raise ConfigError(
                "not a pair", where=f"{samples}:{number}", mend="write gold<TAB>text<TAB>text"
            )
        if parts[0].strip():
            gold.append(_number(parts[0], f"{samples}:{number}"))
            texts += parts[1:3]
    if len(gold) < 3:
        raise ConfigError(f"{len(gold)} labelled pairs are too few", where=samples)
    index = np.arange(2 * len(gold), dtype=np.intp).reshape(-1, 2)
    return Labelled(tuple(texts), np.array(gold), index)


def matrix(samples: Path, labels: Path, encoding: str) -> Labelled:
    """Read a text a line and the upper triangle of a square matrix of judgements."""
    texts = tuple(line for line in _lines(samples, encoding) if line.strip())
    rows = [line.split() for line in _lines(labels, "utf-8") if line.strip()]
    if len(rows) != len(texts) or any(len(row) != len(texts) for row in rows):
        raise ConfigError(
            f"judgements of {len(rows)} texts for {len(texts)}",
            where=labels,
            mend="give a square matrix, a row and a column a text",
        )
    left, right = np.triu_indices(len(texts), k=1)
    table = np.array([[_number(cell, labels) for cell in row] for row in rows])
    index = np.stack([left, right], axis=1).astype(np.intp)
    return Labelled(texts, table[left, right], index, shared=True)


def classes(samples: Path, labels: Path | None, encoding: str, names: Sequence[str]) -> Labelled:
    """Read a text and a class an item: by columns, or by a second file with a class a line."""
    if labels is None:
        rows = _table(samples, encoding)
        texts, given = tuple(row[0] for row in rows), [row[1] for row in rows]
    else:
        texts, given = tuple(_lines(samples, encoding)), _lines(labels, "utf-8")
    if len(texts) != len(given):
        raise ConfigError(f"{len(given)} classes for {len(texts)} texts", where=labels or samples)
    gold = np.array([_class(label.strip(), names, labels or samples) for label in given])
    return Labelled(texts, gold, np.empty((0, 2), dtype=np.intp))


def texts(samples: Path, encoding: str) -> Labelled:
    """Read a text a line that is its own gold."""
    found = tuple(_lines(samples, encoding))
    return Labelled(found, np.zeros(len(found)), np.empty((0, 2), dtype=np.intp))


def answers(samples: Path, labels: Path | None, encoding: str) -> Labelled:
    """Read a text and its answer an item: by columns, or by a second file with an answer a line.

    The samples may be the .npz of an encoder's arrays, a sample a row, beside such a second file.
    """
    if samples.suffix == ".npz":
        return _written_of(samples, labels, encoding)
    if labels is None:
        rows = _table(samples, encoding)
        asked, gold = tuple(row[0] for row in rows), [row[1] for row in rows]
    else:
        asked, gold = tuple(_lines(samples, encoding)), _lines(labels, encoding)
    if len(asked) != len(gold):
        raise ConfigError(f"{len(gold)} answers for {len(asked)} texts", where=labels or samples)
    return Labelled(asked, np.array(gold, dtype=object), np.empty((0, 2), dtype=np.intp))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz by name.

    Raises:
        ConfigError: it cannot be read, or is no such file.
    """
    if not path.is_file():
        raise ConfigError("no such file", where=path, mend="name a .npz of arrays")
    mend = "write it with numpy.savez"
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ConfigError("one array, and no .npz of arrays by name", where=path, mend=mend)
        with found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ConfigError("not a whole .npz of arrays", where=path, mend=mend) from error


def _written_of(samples: Path, labels: Path | None, encoding: str) -> Labelled:
    if labels is None:
        mend = "name a file with a text a line, `labels`"
        raise ConfigError("arrays without the texts they stand for", where=samples, mend=mend)
    arrays = read_arrays(samples)
    gold = _lines(labels, encoding)
    if not arrays or any(array.ndim == 0 or len(array) != len(gold) for array in arrays.values()):
        sizes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        what = f"{len(gold)} texts for {sizes or 'no arrays'}"
        raise ConfigError(what, where=samples, mend="give a row a text")
    numbers = tuple(map(str, range(len(gold))))
    none = np.empty((0, 2), dtype=np.intp)
    return Labelled(numbers, np.array(gold, dtype=object), none, arrays=arrays)


def _table(path: Path, encoding: str) -> list[list[str]]:
    """Rows of text and class of a TSV (no quoting) or a CSV with a header."""
    lines = _lines(path, encoding)
    if path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO("\n".join(lines))))[1:]
    else:
        rows = [line.rsplit("\t", 1) for line in lines]
    bad = next((number for number, row in enumerate(rows, 1) if len(row) != 2), None)
    if bad is not None:
        raise ConfigError("not a text and its class", where=f"{path}, row {bad}")
    return rows


def _class(label: str, names: Sequence[str], where: Path) -> int:
    if label in names:
        return list(names).index(label)
    if label.isdecimal():
        return int(label)
    raise ConfigError(
        f"{label!r} is no class of the model",
        where=where,
        mend=f"write one of {', '.join(names[:8])}" if names else "write the class's index",
    )


def _number(text: str, where: object) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{text[:40]!r} is not a number", where=where) from error
    if not np.isfinite(value):
        raise ConfigError(f"{text} is not finite", where=where)
    return value


def _lines(path: Path, encoding: str) -> list[str]:
    try:
        text = path.read_text(encoding=encoding)
    except OSError as error:
        raise ConfigError(f"cannot read evaluation data: {error.strerror}", where=path) from error
    except (UnicodeDecodeError, LookupError) as error:
        raise ConfigError(
            f"evaluation data is not {encoding} text", where=path, mend="set its encoding"
        ) from error
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise ConfigError("evaluation data is empty", where=path)
    return [line for line in lines if line.strip()]
