"""One text's outputs as an answer in JSON values: an embedding, labels with scores, or arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from .signature import Signature

Arrays = dict[str, NDArray[Any]]


def answer(
    signature: Signature, outputs: Arrays, encoding: Encoding, *, problem: str = ""
) -> dict[str, Any]:
    """The answer that the graph's outputs mean; each array is of one text, padding taken off.

    A sentence embedding is `embedding`; logits over named classes are `label`, `score` and
    `scores`, logits over classes a token are `tokens`; anything else is each output's numbers.
    `problem` is what `problem_type` gives.
    """
    embedding = signature.output("sentence_embedding")
    if embedding is not None:
        return {"embedding": outputs[embedding.name].astype(np.float32).tolist()}
    logits = signature.output("logits")
    if logits is not None and signature.labels:
        values = outputs[logits.name].astype(np.float64)
        if values.ndim == 1:
            return _classes(values, signature.labels, problem)
        return {"tokens": _tokens(values, signature.labels, encoding)}
    return {name: array.tolist() for name, array in outputs.items()}


def _classes(logits: NDArray[Any], labels: tuple[str, ...], problem: str) -> dict[str, Any]:
    scores = _scores(logits, problem)
    if len(logits) == 1:
        return {"label": labels[0], "score": float(scores[0])}
    best = int(np.argmax(scores))
    named = {label: float(score) for label, score in zip(labels, scores, strict=True)}
    return {"label": labels[best], "score": float(scores[best]), "scores": named}


def _scores(logits: NDArray[Any], problem: str) -> NDArray[Any]:
    """As transformers' pipeline has it: the numbers of a regression are its answer."""
    if problem == "regression":
        return logits
    if problem == "multi_label_classification" or len(logits) == 1:
        return (1 + np.tanh(logits / 2)) / 2  # the sigmoid, which overflows nowhere
    return softmax(logits)


def _tokens(
    logits: NDArray[Any], labels: tuple[str, ...], encoding: Encoding
) -> list[dict[str, Any]]:
    """Label of each token of [tokens, classes]; `start` and `end` are characters of the text."""
    tokens: list[dict[str, Any]] = []
    for index, scores in enumerate(softmax(logits)):
        if not encoding.special_tokens_mask[index]:
            best = int(np.argmax(scores))
            start, end = encoding.offsets[index]
            tokens.append(
                {
                    "token": encoding.tokens[index],
                    "label": labels[best],
                    "score": float(scores[best]),
                    "start": start,
                    "end": end,
                }
            )
    return tokens


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """exp(x) / sum(exp(x)) over the last axis, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def problem_type(assets: Path) -> str:
    """What a classifier's logits are, by the checkpoint's own config.json; empty where unsaid."""
    try:
        config = json.loads((assets / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    return str(config.get("problem_type") or "") if isinstance(config, dict) else ""
