"""Files of rows with fields: .csv, .tsv, .jsonl, .parquet, saved `datasets` folders."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import ConfigError, MissingError
from .texts import lines_of, read_text

#: A first row that holds one of these is a heading.
_HEADINGS = {
    "text", "texts", "sentence", "sentence1", "sentence2", "review", "question", "query",
    "premise", "hypothesis", "content", "document", "title", "label", "category", "score",
}  # fmt: skip
_COLUMNS = {".csv": ",", ".tsv": "\t"}
#: A row that is put after the last one, and read with it where a quote is open.
_END = "end of file"

Row = dict[str, Any]


def read_csv(path: Path, field: str | None, encoding: str) -> list[str]:
    """Texts of a comma-separated file; columns by heading, or by number from 1.

    Raises:
        ConfigError: it is not CSV, or a quote is not closed.
    """
    text = f"{read_text(path, encoding)}\n{_END}"
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, ""))
    rows, starts = list[list[str]](), [0]
    try:
        for row in reader:
            rows.append(row)
            starts.append(reader.line_num)
    except csv.Error as error:
        raise ConfigError(
            f"line {reader.line_num} is not CSV", where=path, mend=str(error)
        ) from error
    if rows.pop() != [_END]:  # all that follows would be one sample
        raise ConfigError(
            f"a quote of line {starts[-2] + 1} is not closed",
            where=path,
            mend="close it, or give a .tsv or .txt file, where quotes mean nothing",
        )
    return _columns(path, field, rows)


def read_tsv(path: Path, field: str | None, encoding: str) -> list[str]:
    """Texts of a tab-separated file, where quotes mean nothing; columns as in `read_csv`."""
    lines = lines_of(read_text(path, encoding))
    return _columns(path, field, [line.split("\t") for line in lines])


def _columns(path: Path, field: str | None, rows: list[list[str]]) -> list[str]:
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return []
    heading = [cell.strip() for cell in rows[0]]
    wanted = {name.strip() for name in field.split(",")} if field else set[str]()
    headed = bool(wanted & set(heading)) or bool({cell.lower() for cell in heading} & _HEADINGS)
    names = heading if headed else [str(number + 1) for number in range(len(heading))]
    body = rows[1:] if headed else rows
    if headed and field and all(name.isdigit() for name in wanted) and not wanted & set(names):
        names = [str(number + 1) for number in range(len(heading))]
    return pick(path, field, [dict(zip(names, row, strict=False)) for row in body])


def read_jsonl(path: Path, field: str | None, encoding: str) -> list[str]:
    """Texts of a file with a JSON object, or a JSON string, a line.

    Raises:
        ConfigError: a line is neither.
    """
    rows: list[Row] = []
    for number, line in enumerate(lines_of(read_text(path, encoding)), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"line {number} is not JSON", where=path, mend="give a JSON object a line"
            ) from error
        value = {"text": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise ConfigError(f"line {number} is no JSON object", where=path)
        rows.append(value)
    return pick(path, field, rows)


def read_parquet(path: Path, field: str | None, encoding: str) -> list[str]:
    """Texts of a parquet file.

    Raises:
        MissingError: pyarrow is not installed.
    """
    del encoding
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingError(
            "reading parquet needs pyarrow", where=path, mend="pip install pyarrow"
        ) from error
    try:
        return pick(path, field, parquet.read_table(path).to_pylist())
    except (OSError, ValueError) as error:
        raise ConfigError("not a whole parquet file", where=path, mend=str(error)) from error


def read_saved(path: Path, field: str | None, encoding: str) -> list[str]:
    """Texts of a folder that `datasets.Dataset.save_to_disk` wrote.

    Raises:
        MissingError: datasets is not installed.
        ConfigError: it is no such folder.
    """
    del encoding
    if not any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        raise ConfigError(
            "a folder, but not of a saved dataset", where=path, mend="name a file of samples"
        )
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingError(
            "reading this folder needs datasets", where=path, mend="pip install datasets"
        ) from error
    found = datasets.load_from_disk(str(path))
    if hasattr(found, "keys"):
        found = found["train"] if "train" in found else found[next(iter(found))]
    return pick(path, field, list(found))


def pick(path: Path, field: str | None, rows: Sequence[Row]) -> list[str]:
    """The texts of the named fields, or of the one with the longest texts.

    Raises:
        ConfigError: no row has such a field, none holds text, or a text is none.
    """
    if not rows:
        return []
    names = [name.strip() for name in field.split(",")] if field else [_longest(path, rows)]
    known = list(dict.fromkeys(name for row in rows for name in row))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"no field {unknown[0]!r}", where=path, mend=f"its fields are {', '.join(known)}"
        )
    texts = [row[name] for row in rows for name in names if isinstance(row.get(name), str)]
    if not texts:
        raise ConfigError(
            f"field {names[0]!r} holds no text", where=path, mend="name another in field"
        )
    _check_letters(path, texts)
    return texts


def _check_letters(path: Path, texts: Iterable[str]) -> None:
    """JSON can write half of a pair of surrogates, which no tokenizer takes."""
    for number, text in enumerate(texts, start=1):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"sample {number} is not Unicode: half a surrogate pair at letter {error.start}",
                where=path,
                mend="mend its \\u escapes, or leave the sample out",
            ) from error


def _longest(path: Path, rows: Iterable[Row]) -> str:
    lengths: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str):
                lengths[name] = lengths.get(name, 0) + len(value)
    if not lengths:
        raise ConfigError("no field holds text", where=path, mend="name another file")
    return max(lengths, key=lambda name: lengths[name])
