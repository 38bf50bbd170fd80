"""What language models are scored by: perplexity, exact answers, words that are wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import ParityError
from . import labelled
from .labelled import Labelled
from .metrics import Array, Metric, stack


class Perplexity(Metric):
    """exp of the mean negative log-likelihood of each text's next tokens; lower is better."""

    name: ClassVar[str] = "perplexity"
    lower: ClassVar[bool] = True

    def read(
        self,
        samples: Path,
        labels: Path | None = None,
        encoding: str = "utf-8",
        names: Sequence[str] = (),
    ) -> Labelled:
        """Read a text a line; a text is its own gold."""
        return labelled.texts(samples, encoding)

    def reduce(self, output: Array, feed: Mapping[str, NDArray[Any]]) -> Array:
        """Logits [rows, tokens, words] to [rows, 2]: summed loss in nats, and tokens predicted."""
        tokens = feed.get("input_ids")
        if tokens is None or output.ndim != 3 or output.shape[:2] != tokens.shape:
            raise ParityError("perplexity needs logits of every token of input_ids")
        real = np.asarray(feed.get("attention_mask", np.ones_like(tokens))).astype(bool)
        real = real[:, -tokens.shape[1] :]
        pairs = real[:, :-1] & real[:, 1:]
        losses = np.stack([_losses(*each) for each in zip(output, tokens, strict=True)])
        losses = np.where(pairs, losses, 0.0)
        return np.stack([losses.sum(1), pairs.sum(1)], axis=1)

    def predictions(self, data: Labelled, outputs: Sequence[Array]) -> Array:
        """Loss and tokens of each text [texts, 2]."""
        return stack(outputs, len(data.texts))

    def statistic(self, predictions: Array, gold: Array) -> float:
        """exp(loss / tokens) over all texts, each token weighing the same."""
        loss, tokens = predictions.sum(0)
        if not tokens:
            raise ParityError("no text has two tokens")
        return float(np.exp(loss / tokens))


class Generated(Metric):
    """A score of generated texts; outputs are arrays of strings."""

    generates: ClassVar[bool] = True

    def read(
        self,
        samples: Path,
        labels: Path | None = None,
        encoding: str = "utf-8",
        names: Sequence[str] = (),
    ) -> Labelled:
        """Read `text<TAB>answer` lines (or a CSV with a heading), or texts and answers by lines."""
        return labelled.answers(samples, labels, encoding)


class ExactMatch(Generated):
    """Share of texts answered word for word, case and outer punctuation aside."""

    name: ClassVar[str] = "exact-match"

    def predictions(self, data: Labelled, outputs: Sequence[Array]) -> Array:
        """1 where the answer is right, else 0."""
        answers = _strings(outputs, len(data.texts))
        return np.array([words(a) == words(b) for a, b in zip(answers, data.gold, strict=True)])

    def statistic(self, predictions: Array, gold: Array) -> float:
        """The mean."""
        return float(predictions.mean())


class WordErrorRate(Generated):
    """Words inserted, deleted and replaced, per word of the gold; lower is better."""

    name: ClassVar[str] = "wer"
    lower: ClassVar[bool] = True

    def predictions(self, data: Labelled, outputs: Sequence[Array]) -> Array:
        """Edits and words of each text [texts, 2]."""
        said = _strings(outputs, len(data.texts))
        gold = [words(str(each)) for each in data.gold]
        edits = [distance(words(a), b) for a, b in zip(said, gold, strict=True)]
        return np.array(list(zip(edits, map(len, gold), strict=True)), dtype=np.float64)

    def statistic(self, predictions: Array, gold: Array) -> float:
        """Edits per word, over all texts."""
        edits, count = predictions.sum(0)
        return float(edits / max(count, 1))


def _losses(logits: Array, tokens: Array) -> Array:
    """Nats [tokens - 1] of a text's next tokens; a text at a time, since logits are large."""
    logits = logits[:-1].astype(np.float32, copy=False)
    top = logits.max(-1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(-1, dtype=np.float64))
    return total - np.take_along_axis(logits, tokens[1:, None].astype(np.intp), -1)[:, 0]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation around them."""
    stripped = (word.strip(".,;:!?\"'()[]-").lower() for word in text.split())
    return [word for word in stripped if word]


def distance(one: Sequence[str], two: Sequence[str]) -> int:
    """Levenshtein's distance of two sequences of words."""
    row = list(range(len(two) + 1))
    for i, left in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(two, 1):
            same = above + (left != right)
            above, row[j] = row[j], min(same, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def _strings(outputs: Sequence[Array], count: int) -> list[str]:
    found = [str(each) for output in outputs for each in np.atleast_1d(output)]
    if len(found) != count:
        raise ParityError(f"{len(found)} answers for {count} texts of the evaluation")
    return found
