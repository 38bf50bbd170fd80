import json
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError, MissingError
from llmdeploy.calibration import read_samples


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def texts(path: Path, **options) -> tuple[str, ...]:
    return read_samples(path, **{"count": 100, "seed": 0, **options}).texts


def test_lines(tmp_path: Path):
    path = write(tmp_path / "a.txt", "one\n\n  two  \nthree")
    assert texts(path) == ("one", "two", "three")


def test_a_draw_is_seeded_in_order_and_has_its_own_digest(tmp_path: Path):
    path = write(tmp_path / "a.txt", "\n".join(map(str, range(1000))))
    one, same = (read_samples(path, count=10, seed=1) for _ in range(2))
    other = read_samples(path, count=10, seed=2)
    assert one == same
    assert one.digest != other.digest
    assert list(map(int, one.texts)) == sorted(map(int, one.texts))


def test_other_encodings(tmp_path: Path):
    path = write(tmp_path / "a.cor", "Zürich\n".encode("latin-1"))
    assert texts(path, encoding="latin-1") == ("Zürich",)
    with pytest.raises(ConfigError, match=r"not text in utf-8.*latin-1"):
        texts(path)
    with pytest.raises(ConfigError, match="no encoding"):
        texts(path, encoding="nonsense")


def test_csv_by_heading_by_number_and_by_length(tmp_path: Path):
    path = write(tmp_path / "a.csv", 'text,label\n"one, two",x\nthree,y\n')
    assert texts(path) == ("one, two", "three")
    assert texts(path, field="label") == ("x", "y")
    assert texts(path, field="2") == ("x", "y")
    assert texts(path, field="text,label") == ("one, two", "x", "three", "y")
    with pytest.raises(ConfigError, match=r"no field 'nope'.*text, label"):
        texts(path, field="nope")


def test_tsv_without_heading_where_quotes_mean_nothing(tmp_path: Path):
    path = write(tmp_path / "a.tsv", '3.6\tA "cat.\tA black cat\n1\tB\tC\n')
    assert texts(path, field="2,3") == ('A "cat.', "A black cat", "B", "C")
    assert texts(path) == ("A black cat", "C")


def test_jsonl(tmp_path: Path):
    rows = [{"id": 1, "text": "one", "tag": "x"}, {"id": 2, "text": "two", "tag": "y"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert texts(path) == ("one", "two")
    assert texts(path, field="tag") == ("x", "y")
    with pytest.raises(ConfigError, match="line 1 is not JSON"):
        texts(write(tmp_path / "b.jsonl", "{"))


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_lines_end_where_files_end_them(tmp_path: Path, letter: str):
    text = f"good{letter}news"
    row = json.dumps({"text": text}, ensure_ascii=False)
    assert texts(write(tmp_path / "a.jsonl", f"{row}\r\n{row}\r{row}")) == (text,) * 3
    filler = "plain words " * 60  # few control letters: more would be a binary file
    assert texts(write(tmp_path / "a.txt", f"{text}\n{filler}\n"))[0] == text
    assert texts(write(tmp_path / "a.tsv", f"text\tlabel\n{text}\t1\n{filler}\t0\n"))[0] == text


def test_a_field_of_a_whole_book(tmp_path: Path):
    book = "news " * 40_000
    assert texts(write(tmp_path / "a.csv", f"text,label\n{book},1\ngood,0\n")) == (book, "good")


def test_a_csv_that_begins_with_a_blank_line_and_fields_with_spaces(tmp_path: Path):
    path = write(tmp_path / "a.csv", "\nid,first,second\n7,a,b\n")
    assert texts(path, field="first, second") == ("a", "b")


def test_a_field_that_comes_late_is_a_field(tmp_path: Path):
    rows = [{"text": "x"}] * 150 + [{"late": "y"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert texts(path, field="late") == ("y",)


def test_other_names_of_utf_8_leave_the_mark_out_too(tmp_path: Path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfgood")
    assert read_samples(path, encoding="UTF_8", count=5, seed=0).texts == ("good",)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"text": null, "label": "x"}', "'text' holds no text"),
        ('{"text": "a\\ud800b"}', "sample 1 is not Unicode"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, line: str, what: str):
    with pytest.raises(ConfigError, match=what):
        texts(write(tmp_path / "a.jsonl", line), field="text")


def test_ready_feeds(tmp_path: Path):
    path = tmp_path / "a.npz"
    ids = np.arange(40).reshape(20, 2)
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids))
    samples = read_samples(path, count=20, seed=0)
    assert samples.texts == ()
    assert [len(feed["input_ids"]) for feed in samples.feeds] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([f["input_ids"] for f in samples.feeds]), ids)
    assert samples.notes
    assert [len(f["input_ids"]) for f in read_samples(path, count=9, seed=0, batch=4).feeds] == [
        4,
        4,
        1,
    ]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("empty.txt", "", "no samples"),
        ("blank.txt", "\n \n", "no samples"),
        ("zero.txt", b"\x00\x01\x02PK\x03", "binary"),
        ("controls.txt", bytes(range(1, 32)) * 10, "binary"),
        ("bad.npz", b"PK\x03\x04 cut", "npz"),
        ("empty.npz", b"", "npz"),
        ("empty.csv", "", "no samples"),
        # without its mate the quote took all that follows for one sample
        ("quote.csv", 'text\nfine\n"open\n' + "more\n" * 40_000, "quote of line 3 is not closed"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, data: str | bytes, what: str):
    with pytest.raises(ConfigError, match=what):
        read_samples(write(tmp_path / name, data), count=5, seed=0)


def test_missing_files_and_folders(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        texts(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match="not of a saved dataset"):
        texts(tmp_path)
    with pytest.raises(ConfigError, match="no field"):
        texts(write(tmp_path / "a.txt", "x"), field="text")


def test_arrays_of_different_lengths(tmp_path: Path):
    np.savez(tmp_path / "a.npz", a=np.zeros((3, 2)), b=np.zeros((4, 2)))
    with pytest.raises(ConfigError, match="a row each"):
        read_samples(tmp_path / "a.npz", count=5, seed=0)


def test_parquet_says_what_it_needs(tmp_path: Path):
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(MissingError, match="pip install pyarrow"):
            texts(write(tmp_path / "a.parquet", b"PAR1"))
    else:
        with pytest.raises(ConfigError, match="parquet"):
            texts(write(tmp_path / "a.parquet", b"PAR1"))
