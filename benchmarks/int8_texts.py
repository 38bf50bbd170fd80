"""Encoders and classifiers: STS pairs, SST-2, Banking77, SPLADE; answers and their scores."""

from functools import cache

import numpy as np
from int8_data import DATA, Answers, Array, Run, batched, need, outputs, rows_of
from llmdeploy.deploy.text import Encoder

# MiniLM on the pairs of STS


@cache
def sts(year: int) -> list[tuple[str, float | None, str, str]]:
    """Set, gold score, two sentences."""
    files = sorted(need(DATA / "sts").glob(f"{year}.*.tsv"))
    return [
        (file.stem, float(row[0]) if row[0].strip() else None, row[1], row[2])
        for file in files
        for row in rows_of(file)
        if len(row) >= 3
    ]


def sts_texts(year: int) -> list[str]:
    return list(dict.fromkeys(text for row in sts(year) for text in row[2:]))


def embed(run: Run, encoder: Encoder) -> Answers:
    return {"embeddings": outputs(run, encoder, sts_texts(2015), "sentence_embedding")}


def score_sts(found: Answers, wanted: Answers) -> dict[str, float]:
    mine, floats = (spearmans(each["embeddings"]) for each in (found, wanted))
    cosines = cosine(found["embeddings"], wanted["embeddings"])
    return {
        "score": float(np.mean(mine)),
        "of_float": float(np.mean(mine) / np.mean(floats)),
        "mean_cosine": float(cosines.mean()),
        "least_cosine": float(cosines.min()),
    }


def spearmans(embeddings: Array) -> list[float]:
    place = {text: index for index, text in enumerate(sts_texts(2015))}
    labelled = [row for row in sts(2015) if row[1] is not None]
    found: list[float] = []
    for name in sorted({row[0] for row in labelled}):
        rows = [row for row in labelled if row[0] == name]
        one, two = (embeddings[[place[row[side]] for row in rows]] for side in (2, 3))
        gold = np.array([row[1] for row in rows], np.float64)
        found.append(float(np.corrcoef(ranks(cosine(one, two)), ranks(gold))[0, 1]))
    return found


def ranks(values: Array) -> Array:
    """Ranks from 1, equal values their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + 1 + ends) / 2)[inverse]


def cosine(one: Array, two: Array) -> Array:
    sizes = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
    return (one * two).sum(axis=-1) / np.maximum(sizes, 1e-30)


# a classifier on SST-2


def sst2(name: str) -> list[tuple[str, int]]:
    lines = need(DATA / "sst2" / name).read_text(encoding="utf-8").splitlines()
    split = (line.rsplit("\t", 1) for line in lines)
    return [(text, int(label)) for text, label in split]


def classify(run: Run, encoder: Encoder) -> Answers:
    rows = sst2("test.tsv") + sst2("dev.tsv")
    scores = outputs(run, encoder, [text for text, _ in rows], "logits")
    return {"scores": scores, "labels": np.array([label for _, label in rows])}


def score_classes(found: Answers, wanted: Answers) -> dict[str, float]:
    right, before = (
        (each["scores"].argmax(axis=1) == each["labels"]).astype(np.float64)
        for each in (found, wanted)
    )
    low, high = paired(right, before)
    return {
        "score": float(right.mean()),
        "of_float": float(right.mean() / before.mean()),
        "of_float_low": low,
        "of_float_high": high,
        "agree": float((found["scores"].argmax(1) == wanted["scores"].argmax(1)).mean()),
    }


def paired(one: Array, two: Array, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of mean(one) / mean(two) by a paired bootstrap."""
    random = np.random.default_rng(0)
    picks = random.integers(0, len(one), (draws, len(one)))
    ratios = one[picks].mean(axis=1) / two[picks].mean(axis=1)
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


# Banking77 on frozen embeddings


@cache
def banking(name: str, count: int) -> list[tuple[str, str]]:
    rows = rows_of(DATA / "banking77" / name, ",")[1:]
    chosen = np.random.default_rng(0).choice(len(rows), min(count, len(rows)), replace=False)
    return [(rows[index][0], rows[index][1]) for index in sorted(chosen)]


def intents(run: Run, encoder: Encoder) -> Answers:
    """Embeddings of both halves; the classifier is fitted to float's of the first."""
    halves = {"train": banking("train.csv", 4000), "test": banking("test.csv", 1500)}
    names = sorted({intent for rows in halves.values() for _, intent in rows})
    found: Answers = {}
    for half, rows in halves.items():
        found[half] = outputs(run, encoder, [text for text, _ in rows], "sentence_embedding")
        found[f"{half}_labels"] = np.array([names.index(intent) for _, intent in rows])
    return found


def score_intents(found: Answers, wanted: Answers) -> dict[str, float]:
    weights = regression(wanted["train"], wanted["train_labels"])
    scores, before = (
        np.pad(each["test"], ((0, 0), (0, 1)), constant_values=1) @ weights
        for each in (found, wanted)
    )
    labels = wanted["test_labels"]
    figures = score_classes(
        {"scores": scores, "labels": labels}, {"scores": before, "labels": labels}
    )
    return {**figures, "mean_cosine": float(cosine(found["test"], wanted["test"]).mean())}


def regression(x: Array, labels: Array, steps: int = 400) -> Array:
    """Multinomial logistic regression [k + 1, classes] by Adam, full batches."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 1)), constant_values=1)
    wanted = np.eye(labels.max() + 1)[labels]
    weights = np.zeros((x.shape[1], wanted.shape[1]))
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, steps + 1):
        logits = x @ weights
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        slope = (
            x.T @ (chance / chance.sum(axis=1, keepdims=True) - wanted) / len(x) + 1e-5 * weights
        )
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        weights -= 0.2 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-9)
    return weights


# SPLADE's sparse vectors


def sparse(run: Run, encoder: Encoder) -> Answers:
    def encode(texts: list[str]) -> Array:
        feed = encoder.encode(texts, max_length=128)
        weights = np.log1p(np.maximum(run(feed)["logits"], 0))
        return (weights * feed["attention_mask"][..., None]).max(axis=1).astype(np.float32)

    return {"vectors": batched(sts_texts(2015)[:1500], encode)}


def score_sparse(found: Answers, wanted: Answers) -> dict[str, float]:
    cosines = cosine(found["vectors"], wanted["vectors"])
    return {"mean_cosine": float(cosines.mean()), "least_cosine": float(cosines.min())}
