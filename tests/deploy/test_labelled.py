"""Labelled data as people keep it: no row is lost, shifted or taken for another in silence."""

from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.labelled import Labelled
from llmdeploy.deploy.language_metrics import ExactMatch, Perplexity
from llmdeploy.deploy.metrics import Accuracy, Metric, Spearman

NAMES = ("NEG", "POS")


def read(metric: Metric, folder: Path, name: str, text: str, labels: str | None = None) -> Labelled:
    path, other = folder / name, folder / "labels.txt"
    path.write_bytes(text.encode())
    if labels is not None:
        other.write_bytes(labels.encode())
    return metric.read(path, other if labels is not None else None, names=NAMES)


ODD = "a\u2028b\x85c\x0cd\x1ce"


@pytest.mark.parametrize(
    ("name", "text", "texts"),
    [
        ("lines.tsv", f"{ODD}\tPOS\n\nbad\tNEG\n", [ODD, "bad"]),
        ("mark.tsv", "\ufeffgood\tPOS\r\nbad\tNEG", ["good", "bad"]),
        ("table.csv", f'text,label\n"{ODD}",POS\n\nbad,NEG\n', [ODD, "bad"]),
        (
            "quoted.csv",
            '\ufefftext,label\n"a, b\n\n c",POS\r\n"d ""e""",NEG',
            ["a, b\n\n c", 'd "e"'],
        ),
        ("headless.csv", "good text,POS\nbad,0\n", ["good text", "bad"]),
    ],
)
def test_every_row_is_read_as_it_is(tmp_path: Path, name: str, text: str, texts: list[str]) -> None:
    data = read(Accuracy(), tmp_path, name, text)
    assert list(data.texts) == texts
    assert data.gold.tolist() == [1, 0]


def test_two_files_are_read_line_by_line(tmp_path: Path) -> None:
    data = read(Accuracy(), tmp_path, "a.txt", f"{ODD}\n\nc\n\n\n", "\ufeffPOS\n\nNEG")
    assert (data.texts, data.gold.tolist()) == ((ODD, "c"), [1, 0])
    for texts, labels in (("a\n\nc\nd\n", "POS\nNEG\n\nNEG\n"), ("a\nb\nc", "POS\n\nNEG")):
        with pytest.raises(ConfigError, match=r"a blank line, .*txt:2, fill it"):
            read(Accuracy(), tmp_path, "a.txt", texts, labels)
    with pytest.raises(ConfigError, match="2 labels for 3 texts"):
        read(ExactMatch(), tmp_path, "a.txt", "a\nb\nc\n", "x\ny\n\n")
    np.savez(tmp_path / "x.npz", features=np.zeros((2, 3)))
    (tmp_path / "labels.txt").write_text("x\n\ny\n")
    with pytest.raises(ConfigError, match=r"a blank line.*txt:2"):
        ExactMatch().read(tmp_path / "x.npz", tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.tsv", "good\t1\n\nbad\t7\n", r"'7' is no class of the model, .*a\.tsv:3, .*NEG, POS"),
        ("a.tsv", f"good\t{'9' * 5000}\n", "is no class of the model"),
        ("a.csv", "text,label\ngood,POS\nbad,pos\n", r"'pos' is no class .*a\.csv:3"),
        ("a.csv", "text,label\n", "empty but for its heading"),
        ("a.csv", 'text,label\n"good,POS\nbad,NEG\n', "not CSV"),
        ("a.csv", "text,label\ngood,POS,3\n", r"not a text and its class, .*a\.csv:2"),
    ],
)
def test_what_is_no_label_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(Accuracy(), tmp_path, name, text)


def test_answers_in_a_csv_need_a_heading(tmp_path: Path) -> None:
    found = read(ExactMatch(), tmp_path, "a.csv", "Question,Answer\nwho,me\n")
    assert (found.texts, found.gold.tolist()) == (("who",), ["me"])
    with pytest.raises(ConfigError, match=r"without a heading, .*text,answer"):
        read(ExactMatch(), tmp_path, "a.csv", "who,me\nwhere,here\n")


def test_a_class_that_the_logits_have_not(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("good\t1\nbad\t2\n")
    data = Accuracy().read(tmp_path / "a.tsv")
    with pytest.raises(ConfigError, match=r"class 2 .* the model has 2, count classes from 0"):
        Accuracy().score(data, [np.zeros((2, 2))])


def test_marks_and_odd_spaces_in_other_data(tmp_path: Path) -> None:
    data = read(Spearman(), tmp_path, "a.tsv", f"\ufeff3.5\t{ODD}\tb\n1\tc\td\n\n2\te\tf \n")
    assert data.gold.tolist() == [3.5, 1, 2]
    assert data.texts == (ODD, "b", "c", "d", "e", "f ")
    assert read(Perplexity(), tmp_path, "a.txt", f"\ufeff{ODD}\n\nnext").texts == (ODD, "next")
