"""What a release is scored by: labelled data and outputs in, one number out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError, ParityError
from . import labelled
from .labelled import Labelled

Array = NDArray[Any]


@dataclass(frozen=True)
class Metric(ABC):
    """A score of a model's primary output against labels.

    `read` gives the texts to run, in order. What runs them hands each batch's output, with its
    feed, to `reduce` and keeps what that gives; `score` takes those arrays [rows, ...] in order,
    one a batch (or one [...] a text). `lower` says that less is better, `generates` that the
    outputs are generated texts.
    """

    name: ClassVar[str]
    lower: ClassVar[bool] = False
    generates: ClassVar[bool] = False

    @abstractmethod
    def read(
        self,
        samples: Path,
        labels: Path | None = None,
        encoding: str = "utf-8",
        names: Sequence[str] = (),
    ) -> Labelled:
        """Read texts and gold; `names` are the model's labels, when it has them.

        Raises:
            ConfigError: a file is missing, empty or not of the format the metric needs.
        """

    def reduce(self, output: Array, feed: Mapping[str, Array]) -> Array:
        """What is kept of one batch's output [rows, ...]: all of it."""
        return output

    @abstractmethod
    def predictions(self, data: Labelled, outputs: Sequence[Array]) -> Array:
        """One prediction an item of `data.gold`, from the outputs of `data.texts`."""

    @abstractmethod
    def statistic(self, predictions: Array, gold: Array) -> float:
        """The score of predictions [items] against gold [items]."""

    def score(self, data: Labelled, outputs: Sequence[Array]) -> float:
        """The score of the outputs of `data.texts`.

        Raises:
            ParityError: it is no finite number.
        """
        return finite(self, self.statistic(self.predictions(data, outputs), data.gold))


class Similarity(Metric):
    """Correlation of the cosine of two texts' embeddings with judgements of their similarity."""

    def read(
        self,
        samples: Path,
        labels: Path | None = None,
        encoding: str = "utf-8",
        names: Sequence[str] = (),
    ) -> Labelled:
        """Read `gold<TAB>a<TAB>b` lines, or a text a line beside a matrix of judgements."""
        if labels is None:
            return labelled.pairs(samples, encoding)
        return labelled.matrix(samples, labels, encoding)

    def predictions(self, data: Labelled, outputs: Sequence[Array]) -> Array:
        """Cosine of each pair's embeddings; outputs are [rows, width].

        Raises:
            ConfigError: they are of another rank.
        """
        rows = _row_a_text(self, stack(outputs, len(data.texts))).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        left, right = data.pairs.T
        return np.einsum("ij,ij->i", rows[left], rows[right])


class Pearson(Similarity):
    """Pearson's correlation with human judgements of similarity."""

    name: ClassVar[str] = "pearson"

    def statistic(self, predictions: Array, gold: Array) -> float:
        """Pearson's r; 0 where one side is constant."""
        return _pearson(predictions, gold)


class Spearman(Similarity):
    """Spearman's rank correlation with human judgements of similarity, ties sharing their rank."""

    name: ClassVar[str] = "spearman"

    def statistic(self, predictions: Array, gold: Array) -> float:
        """Spearman's rho; 0 where one side is constant."""
        return _pearson(_ranks(predictions), _ranks(gold))


class Classification(Metric):
    """A classifier's argmax against the class of each text."""

    def read(
        self,
        samples: Path,
        labels: Path | None = None,
        encoding: str = "utf-8",
        names: Sequence[str] = (),
    ) -> Labelled:
        """Read `text<TAB>class` lines (or a CSV of them), or texts beside a class a line.

        A CSV's first row is its heading, unless what stands there for a class is one.
        """
        return labelled.classes(samples, labels, encoding, names)

    def predictions(self, data: Labelled, outputs: Sequence[Array]) -> Array:
        """Argmax over the last axis of logits [rows, classes].

        Raises:
            ConfigError: the gold has a class that the model has not, or outputs of another rank.
        """
        rows = _row_a_text(self, stack(outputs, len(data.texts)))
        if data.gold.max(initial=0) >= rows.shape[-1]:
            what = f"class {data.gold.max()} of the evaluation, and the model has {rows.shape[-1]}"
            raise ConfigError(what, mend="count classes from 0")
        return rows.argmax(axis=-1)


class Accuracy(Classification):
    """Share of texts whose class is right."""

    name: ClassVar[str] = "accuracy"

    def statistic(self, predictions: Array, gold: Array) -> float:
        """Share of equal items."""
        return float(np.mean(predictions == gold))


class F1(Classification):
    """Macro F1: the mean over classes of the harmonic mean of precision and recall."""

    name: ClassVar[str] = "f1"

    def statistic(self, predictions: Array, gold: Array) -> float:
        """Macro F1 over the classes that occur in `gold`."""
        return float(np.mean([_f1(predictions == each, gold == each) for each in np.unique(gold)]))


def stack(outputs: Sequence[Array], count: int, places: Sequence[int] = ()) -> Array:
    """Join batches [rows, ...], or single rows [...], into [count, ...].

    `places` are those of the rows where batches were run in another order.

    Raises:
        ParityError: there are not `count` rows, their widths differ, or one is not finite.
    """
    try:
        single = len(outputs) == count and all(array.ndim == 1 for array in outputs)
        rows = np.stack(outputs) if single else np.concatenate(outputs)
    except ValueError as error:
        raise ParityError("outputs of the evaluation do not fit together", where=error) from error
    if len(rows) != count:
        raise ParityError(f"{len(rows)} outputs for {count} texts of the evaluation")
    if places:
        rows = rows[np.argsort(places)]
    # argmax, ranks and clipped norms make ordinary numbers of a NaN: it is told before them
    bad = _not_finite(rows)
    if len(bad):
        raise ParityError(
            f"the outputs of {len(bad)} of {count} texts of the evaluation hold a NaN or Inf",
            where=f"text {bad[0] + 1}",
            mend="try a wider precision, or mend the checkpoint where float gives it too",
        )
    return rows


def _row_a_text(metric: Metric, rows: Array) -> Array:
    """Outputs as they are, where they are a row of numbers a text [texts, numbers].

    Of a row a token, padding would be scored too, and classes be held against other texts' gold.
    """
    if rows.ndim == 2:
        return rows
    raise ConfigError(
        f"{metric.name} scores a row of numbers a text, and the model gives {list(rows.shape[1:])}",
        where="[evaluation] metric",
        mend="leave it out, or export a task whose first output is one: a classifier's logits, "
        "a sentence's embedding",
    )


def finite(metric: Metric, value: float) -> float:
    """A metric's score as it is.

    Raises:
        ParityError: it is no finite number.
    """
    if not np.isfinite(value):
        raise ParityError(f"{metric.name} of the evaluation is {value}", mend="see the outputs")
    return value


def _not_finite(rows: Array) -> NDArray[np.intp]:
    """Places of the rows [rows, ...] that hold a NaN or Inf."""
    if rows.dtype.kind != "f":
        return np.empty(0, np.intp)
    return np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))


def _pearson(left: Array, right: Array) -> float:
    left, right = left - left.mean(), right - right.mean()
    scale = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / scale if scale > 0 else 0.0


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _f1(predicted: Array, true: Array) -> float:
    hits = float(np.sum(predicted & true))
    return 2 * hits / max(float(predicted.sum() + true.sum()), 1.0)
