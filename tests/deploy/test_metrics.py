from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError, ParityError
from llmdeploy.deploy.bootstrap import draw, paired
from llmdeploy.deploy.labelled import Labelled
from llmdeploy.deploy.language_metrics import Perplexity
from llmdeploy.deploy.metrics import F1, Accuracy, Metric, Pearson, Spearman, stack

from .graphs import normal


def pair_file(folder: Path, count: int = 60) -> tuple[Path, list[np.ndarray]]:
    """Pairs whose gold is the cosine of the embeddings that are returned, with some noise."""
    rows = normal(2 * count, 8)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    gold = np.einsum("ij,ij->i", unit[::2], unit[1::2]) + 0.1 * normal(count, seed=5)
    path = folder / "pairs.tsv"
    lines = [f"{value}\tleft {i}\tright {i}" for i, value in enumerate(gold)]
    path.write_text("\n".join(["\tno gold\tleft out", *lines]) + "\n")
    return path, [rows[start : start + 7] for start in range(0, len(rows), 7)]


def test_pearson_and_spearman_are_numpy_s(tmp_path: Path) -> None:
    path, outputs = pair_file(tmp_path)
    data = Pearson().read(path)
    assert len(data.gold) == 60
    assert data.texts[:2] == ("left 0", "right 0")
    predicted = Pearson().predictions(data, outputs)
    expected = np.corrcoef(predicted, data.gold)[0, 1]
    assert Pearson().score(data, outputs) == pytest.approx(expected, abs=1e-12)
    ranks = [np.argsort(np.argsort(each)) for each in (predicted, data.gold)]
    assert Spearman().score(data, outputs) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)


def test_spearman_shares_ranks_of_ties() -> None:
    # Worked by hand: ranks (1.5, 1.5, 3) and (1, 2, 3) correlate by sqrt(3) / 2.
    value = Spearman().statistic(np.array([1.0, 1.0, 2.0]), np.array([5.0, 6.0, 7.0]))
    assert value == pytest.approx(3**0.5 / 2)


def test_a_matrix_of_judgements(tmp_path: Path) -> None:
    texts, matrix = tmp_path / "texts.cor", tmp_path / "matrix.txt"
    texts.write_text("café\nb\nc\n", encoding="latin-1")
    matrix.write_text("1 .1 .2\n9 1 .3\n9 9 1\n")
    data = Pearson().read(texts, matrix, "latin-1")
    assert data.gold.tolist() == [0.1, 0.2, 0.3]
    assert data.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert data.texts[0] == "café"
    with pytest.raises(ConfigError, match="not utf-8 text"):
        Pearson().read(texts, matrix)


def test_accuracy_and_f1(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text("good\t1\nbad\t0\nfine\t1\nawful\t0\n")
    data = Accuracy().read(path)
    logits = [np.array([[0, 1], [1, 0]], np.float32), np.array([[1, 0], [1, 0]], np.float32)]
    assert Accuracy().score(data, logits) == 0.75
    # Class 0: precision 2/3, recall 1; class 1: precision 1, recall 1/2.
    assert F1().score(data, logits) == pytest.approx((0.8 + 2 / 3) / 2)


def test_classes_by_name_and_beside_the_texts(tmp_path: Path) -> None:
    table, labels = tmp_path / "dev.csv", tmp_path / "labels.txt"
    table.write_text('text,category\n"a, b",card_arrival\nc,lost\n')
    names = ("lost", "card_arrival")
    assert Accuracy().read(table, names=names).gold.tolist() == [1, 0]
    with pytest.raises(ConfigError, match=r"no class of the model.*index"):
        Accuracy().read(table)
    texts = tmp_path / "texts.txt"
    texts.write_text("a\nb\n")
    labels.write_text("1\n0\n")
    assert Accuracy().read(texts, labels).gold.tolist() == [1, 0]


@pytest.mark.parametrize("content", [None, "", "only one column\n"])
def test_data_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "data.tsv"
    if content is not None:
        path.write_text(content)
    for metric in (Accuracy(), Pearson()):
        with pytest.raises(ConfigError):
            metric.read(path)


def test_outputs_that_do_not_fit() -> None:
    assert stack([np.ones(3), np.ones(3)], 2).shape == (2, 3)
    assert stack([np.ones((2, 3)), np.ones((1, 3))], 3).shape == (3, 3)
    with pytest.raises(ParityError, match="5 outputs for 4 texts"):
        stack([np.ones((5, 3))], 4)
    with pytest.raises(ParityError, match="do not fit"):
        stack([np.ones((2, 3)), np.ones((2, 4))], 4)


@pytest.mark.parametrize("metric", [Accuracy(), F1(), Pearson(), Spearman(), Perplexity()])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_no_score(metric: Metric, odd: float) -> None:
    texts, pairs = tuple("abcdef"), np.arange(6, dtype=np.intp).reshape(-1, 2)
    gold = np.arange(3.0) if isinstance(metric, Pearson | Spearman) else np.arange(6) % 2
    data = Labelled(texts, gold, pairs)
    sound = [normal(4, 2), normal(2, 2)]
    broken = [sound[0], np.array([[0.1, 0.2], [0.3, odd]])]
    with pytest.raises(ParityError, match=r"1 of 6 texts.*NaN or Inf, text 6"):
        metric.score(data, broken)
    for one, other in ((sound, broken), (broken, sound)):
        with pytest.raises(ParityError, match="text 6"):
            paired(metric, data, one, other, resamples=2)


def test_a_nan_among_the_logits_of_a_text_is_no_perplexity() -> None:
    feed = {
        "input_ids": np.array([[1, 2, 3], [1, 2, 0]]),
        "attention_mask": np.array([[1] * 3] * 2),
    }
    logits = np.zeros((2, 3, 5), np.float16)
    logits[1, 1, 0] = np.nan
    data = Labelled(("a", "b"), np.zeros(2), np.empty((0, 2), np.intp))
    with pytest.raises(ParityError, match="text 2"):
        Perplexity().score(data, [Perplexity().reduce(logits, feed)])
    feed["attention_mask"][1, 2] = 0  # of padding, nothing is asked
    assert Perplexity().score(data, [Perplexity().reduce(logits, feed)]) == pytest.approx(5)


def test_a_score_that_overflows_is_told() -> None:
    data = Labelled(("a",), np.zeros(1), np.empty((0, 2), np.intp))
    with np.errstate(over="ignore"), pytest.raises(ParityError, match=r"perplexity.*is inf"):
        Perplexity().score(data, [np.array([[2e3, 1.0]])])


@pytest.mark.parametrize("metric", [Accuracy(), F1(), Pearson(), Spearman()])
@pytest.mark.parametrize("shape", [(6,), (6, 6, 3), (6, 1, 3)])
def test_outputs_of_every_token_are_no_row_a_text(metric: Metric, shape: tuple[int, ...]) -> None:
    pairs = np.arange(6, dtype=np.intp).reshape(-1, 2)
    gold = np.arange(3.0) if isinstance(metric, Pearson | Spearman) else np.arange(6) % 2
    data = Labelled(tuple("abcdef"), gold, pairs)
    with pytest.raises(ConfigError, match=r"a row of numbers a text, .*\[evaluation\] metric"):
        metric.score(data, [normal(*shape)])


def test_bootstrap_tells_noise_from_a_drop(tmp_path: Path) -> None:
    path, outputs = pair_file(tmp_path, 200)
    data = Pearson().read(path)
    same = paired(Pearson(), data, outputs, outputs, resamples=200)
    assert (same.change, same.low, same.high) == (0.0, 0.0, 0.0)
    assert same.verdict(0.0) == "holds"
    random = [each + 3 * normal(*each.shape, seed=3) for each in outputs]
    worse = paired(Pearson(), data, outputs, random, resamples=200)
    assert worse.low < worse.change < worse.high < -0.1
    assert worse.verdict(0.01) == "fails"
    assert worse == paired(Pearson(), data, outputs, random, resamples=200)


def test_a_small_sample_cannot_tell(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text("".join(f"text {i}\t{i % 2}\n" for i in range(20)))
    data = Accuracy().read(path)
    right = np.eye(2, dtype=np.float32)[data.gold]
    wrong = right.copy()
    wrong[0] = wrong[0][::-1]
    scores = paired(Accuracy(), data, [right], [wrong])
    assert scores.change == pytest.approx(-0.05)
    assert scores.verdict(0.01) == "cannot tell"


def test_pairs_of_shared_texts_are_drawn_by_text(tmp_path: Path) -> None:
    texts, matrix = tmp_path / "texts.txt", tmp_path / "matrix.txt"
    texts.write_text("a\nb\nc\nd\n")
    matrix.write_text("1 2 3 4\n" * 4)
    data = Pearson().read(texts, matrix)
    random = np.random.default_rng(0)
    for _ in range(20):
        drawn = {int(text) for pair in data.pairs[draw(data, random)] for text in pair}
        assert len(draw(data, random)) <= 6
        assert len(drawn) <= 4
