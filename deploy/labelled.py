"""Labelled evaluation data, read from the plain files people keep it in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError
from . import rows
from .rows import Row

#: A CSV of answers starts with a heading that holds one of these.
_HEADINGS = frozenset(
    ["text", "sentence", "question", "query", "prompt", "input", "source", "document"]
)


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
    for line, _, where in rows.lines(samples, encoding):
        parts = line.split("\t")
        if len(parts) < 3:
            raise ConfigError("not a pair", where=where, mend="write gold<TAB>text<TAB>text")
        if parts[0].strip():
            gold.append(_number(parts[0], where))
            texts += parts[1:3]
    if len(gold) < 3:
        raise ConfigError(f"{len(gold)} labelled pairs are too few", where=samples)
    index = np.arange(2 * len(gold), dtype=np.intp).reshape(-1, 2)
    return Labelled(tuple(texts), np.array(gold), index)


def matrix(samples: Path, labels: Path, encoding: str) -> Labelled:
    """Read a text a line and the upper triangle of a square matrix of judgements."""
    texts = tuple(row.text for row in rows.lines(samples, encoding))
    cells = [row.text.split() for row in rows.lines(labels, "utf-8")]
    if len(cells) != len(texts) or any(len(row) != len(texts) for row in cells):
        raise ConfigError(
            f"judgements of {len(cells)} texts for {len(texts)}",
            where=labels,
            mend="give a square matrix, a row and a column a text",
        )
    left, right = np.triu_indices(len(texts), k=1)
    table = np.array([[_number(cell, labels) for cell in row] for row in cells])
    index = np.stack([left, right], axis=1).astype(np.intp)
    return Labelled(texts, table[left, right], index, shared=True)


def classes(samples: Path, labels: Path | None, encoding: str, names: Sequence[str]) -> Labelled:
    """Read a text and a class an item: by columns, or by a second file with a class a line.

    A CSV's first row is a heading, unless its class is one of the model's.
    """
    if labels is None:
        found = rows.table(samples, encoding)
        headed = samples.suffix == ".csv" and _index(found[0].gold, names) is None
        found = _without_heading(found, samples) if headed else found
    else:
        found = rows.beside(samples, encoding, labels, "utf-8")
    gold = np.array([_class(row, names) for row in found])
    return Labelled(tuple(row.text for row in found), gold, np.empty((0, 2), dtype=np.intp))


def texts(samples: Path, encoding: str) -> Labelled:
    """Read a text a line that is its own gold."""
    found = tuple(row.text for row in rows.lines(samples, encoding))
    return Labelled(found, np.zeros(len(found)), np.empty((0, 2), dtype=np.intp))


def answers(samples: Path, labels: Path | None, encoding: str) -> Labelled:
    """Read a text and its answer an item: by columns, or by a second file with an answer a line.

    The samples may be the .npz of an encoder's arrays, a sample a row, beside such a second file.
    A CSV must have a heading.
    """
    if samples.suffix == ".npz":
        return _written_of(samples, labels, encoding)
    if labels is not None:
        found = rows.beside(samples, encoding, labels, encoding)
    else:
        found = rows.table(samples, encoding)
        found = _without_heading(found, samples, _HEADINGS) if samples.suffix == ".csv" else found
    gold = np.array([row.gold for row in found], dtype=object)
    return Labelled(tuple(row.text for row in found), gold, np.empty((0, 2), dtype=np.intp))


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
    gold = rows.filled(labels, encoding)
    if not arrays or any(array.ndim == 0 or len(array) != len(gold) for array in arrays.values()):
        sizes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        what = f"{len(gold)} texts for {sizes or 'no arrays'}"
        raise ConfigError(what, where=samples, mend="give a row a text")
    numbers = tuple(map(str, range(len(gold))))
    none = np.empty((0, 2), dtype=np.intp)
    return Labelled(numbers, np.array(gold, dtype=object), none, arrays=arrays)


def _without_heading(found: list[Row], path: Path, known: Collection[str] = ()) -> list[Row]:
    """The rows after the heading, one of whose columns has a known name where some are given."""
    heading = {cell.strip().lower() for cell in found[0][:2]}
    if known and not heading & set(known):
        mend = "start it with a line that names its columns: text,answer"
        raise ConfigError("a CSV without a heading", where=path, mend=mend)
    if len(found) == 1:
        raise ConfigError("evaluation data is empty but for its heading", where=path)
    return found[1:]


def _class(row: Row, names: Sequence[str]) -> int:
    index = _index(row.gold, names)
    if index is None:
        some = ", ".join(names[:8])
        mend = f"write one of {some}, or its index" if names else "write the class's index"
        raise ConfigError(f"{row.gold[:40]!r} is no class of the model", where=row.where, mend=mend)
    return index


def _index(label: str, names: Sequence[str]) -> int | None:
    """A class's index by its name or its number, None where the model has no such class."""
    label = label.strip()
    if label in names:
        return list(names).index(label)
    index = int(label) if label.isdecimal() and len(label) < 10 else None
    return None if index is None or (names and index >= len(names)) else index


def _number(text: str, where: object) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{text[:40]!r} is not a number", where=where) from error
    if not np.isfinite(value):
        raise ConfigError(f"{text} is not finite", where=where)
    return value
