"""Causal language models: the likelihood of text they go on reading."""

from collections.abc import Callable, Mapping

import numpy as np
from int8_data import DATA, Answers, Array, Run, need
from llmdeploy.deploy.text import Encoder


def passages(file: str, words: int, skip: int = 0) -> list[str]:
    """A text cut into pieces of so many words."""
    found = need(DATA / "text" / file).read_text(encoding="utf-8").split()
    pieces = [found[start : start + words] for start in range(0, len(found), words)]
    return [" ".join(piece) for piece in pieces[skip:]]


def read_on(file: str, rows: int, length: int) -> Callable[[Run, Encoder], Answers]:
    """The log-likelihoods of the next tokens of the first `rows` x `length` tokens of a text."""

    def answer(run: Run, encoder: Encoder) -> Answers:
        text = need(DATA / "text" / file).read_text(encoding="utf-8")
        ids = tokens(encoder, text)
        feed = encoder.encode(["a"], max_length=8)
        found = [
            likelihoods(run, feed, ids[start : start + length])
            for start in range(0, rows * length, length)
        ]
        return {"likelihoods": np.concatenate(found)}

    return answer


def tokens(encoder: Encoder, text: str) -> Array:
    """The ids of a text of any length, no special tokens among them."""
    return np.asarray(encoder.ids(text))


def likelihoods(run: Run, like: Mapping[str, Array], ids: Array) -> Array:
    feed = {name: array for name, array in like.items() if array.ndim > 2}
    row = np.asarray(ids, np.int64)[None]
    feed |= {"input_ids": row, "attention_mask": np.ones_like(row)}
    if "position_ids" in like:
        feed["position_ids"] = np.arange(row.shape[1])[None]
    logits = run(feed)["logits"][0, :-1].astype(np.float64)
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return logits[np.arange(len(logits)), row[0, 1:]] - total


def score_likelihoods(found: Answers, wanted: Answers) -> dict[str, float]:
    mine, floats = (float(np.exp(-each["likelihoods"].mean())) for each in (found, wanted))
    return {"score": mine, "of_float": mine / floats}
