from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError, ParityError
from llmdeploy.deploy.bootstrap import paired
from llmdeploy.deploy.language_metrics import ExactMatch, Perplexity, WordErrorRate, distance, words
from llmdeploy.deploy.metrics import Accuracy

from .graphs import normal


def test_perplexity_of_uniform_logits_is_the_number_of_words(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\n\nthree\n")
    metric, data = Perplexity(), Perplexity().read(path)
    assert data.texts == ("one", "two", "three")
    feed = {
        "input_ids": np.array([[3, 1, 4], [1, 5, 0], [2, 2, 2]]),
        "attention_mask": np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1]]),
    }
    kept = metric.reduce(np.zeros((3, 3, 7), np.float16), feed)
    assert kept[:, 1].tolist() == [2, 1, 2]
    assert metric.score(data, [kept]) == pytest.approx(7.0)


def test_perplexity_is_that_of_the_definition_and_ignores_padding(tmp_path: Path) -> None:
    logits = normal(2, 4, 6)
    tokens = np.array([[0, 5, 1, 2], [3, 4, 0, 1]])
    mask = np.array([[0, 1, 1, 1], [1, 1, 1, 1]])
    kept = Perplexity().reduce(logits, {"input_ids": tokens, "attention_mask": mask})
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    places = [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    losses = [-np.log(probability[row, at, tokens[row, at + 1]]) for row, at in places]
    assert Perplexity().statistic(kept, np.zeros(2)) == pytest.approx(
        np.exp(np.mean(losses)), rel=1e-6
    )
    with pytest.raises(ParityError, match="logits of every token"):
        Perplexity().reduce(logits[:, 0], {"input_ids": tokens})


def test_where_less_is_better_more_is_a_drop(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a\nb\nc\nd\n")
    data = Perplexity().read(path)
    good, bad = np.array([[2.0, 4.0]] * 4), np.array([[2.4, 4.0]] * 4)
    assert paired(Perplexity(), data, [good], [bad], resamples=50).verdict(0.01) == "fails"
    assert paired(Perplexity(), data, [bad], [good], resamples=50).change > 0


def test_words_and_their_distance() -> None:
    assert words("Ask not, what (your) Country!  --") == ["ask", "not", "what", "your", "country"]
    assert distance(["a", "b", "c", "d"], ["a", "x", "c"]) == 2
    assert distance([], ["a"]) == 1
    assert distance(["a"], ["a"]) == 0


def test_exact_match_and_word_errors(tmp_path: Path) -> None:
    path = tmp_path / "qa.tsv"
    path.write_text("q1\tThe answer.\nq2\tone two three four\n")
    outputs = [np.array(["the answer"]), np.array(["one too three"])]
    assert ExactMatch().score(ExactMatch().read(path), outputs) == 0.5
    data = WordErrorRate().read(path)
    assert WordErrorRate().score(data, outputs) == pytest.approx(2 / 6)
    assert WordErrorRate.generates
    assert not Accuracy.generates
    with pytest.raises(ParityError, match="1 answers for 2 texts"):
        WordErrorRate().score(data, outputs[:1])
    (tmp_path / "answers.txt").write_text("only one\n")
    with pytest.raises(ConfigError, match="1 labels for 2 texts"):
        WordErrorRate().read(path, tmp_path / "answers.txt")
