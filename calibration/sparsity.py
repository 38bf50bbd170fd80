"""Weights set to zero: two of four, or a share of each output's, chosen and made up for.

By magnitude; by |w| |x| (Wanda, arXiv 2306.11695); or input by input with all later ones making
up for what went (SparseGPT, arXiv 2301.00774).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .removal import Matrix, damped

Pattern = Literal["2:4", "unstructured"]
Method = Literal["sparsegpt", "wanda", "magnitude"]
#: Inputs whose zeros are chosen together where no pattern says how many.
BLOCK = 128
FOUR, TWO = 4, 2


def sparse(
    gram: Matrix,
    weight: Matrix,
    rows: int,
    pattern: Pattern = "2:4",
    ratio: float = 0.5,
    method: Method = "sparsegpt",
) -> NDArray[np.float32]:
    """A weight [k, n] with zeros, for inputs of second moments `gram` [k, k] over `rows` rows.

    Raises:
        ValueError: k is no multiple of four, where the pattern is 2:4.
    """
    if pattern == "2:4" and len(weight) % FOUR:
        raise ValueError("the number of inputs is no multiple of four")
    if method == "sparsegpt":
        return _made_up(gram, weight, rows, pattern, ratio)
    score = np.abs(weight)
    if method == "wanda":
        score = score * np.sqrt(np.maximum(np.diag(gram), 0.0))[:, None]
    return np.where(kept(score, pattern, ratio), weight, 0.0).astype(np.float32)


def kept(score: Matrix, pattern: Pattern, ratio: float) -> NDArray[np.bool_]:
    """Which weights [k, n] stay: of each four inputs of an output two, or its best share."""
    if pattern == "2:4":
        fours = score.reshape(-1, FOUR, score.shape[1])
        places = np.argsort(np.argsort(-fours, axis=1, kind="stable"), axis=1, kind="stable")
        return (places < TWO).reshape(score.shape)
    gone = round(len(score) * ratio)
    places = np.argsort(np.argsort(score, axis=0, kind="stable"), axis=0, kind="stable")
    return places >= gone


def _made_up(
    gram: Matrix, weight: Matrix, rows: int, pattern: Pattern, ratio: float
) -> NDArray[np.float32]:
    inverse = np.linalg.inv(damped(gram, rows)[0])
    factor = np.linalg.cholesky(inverse).T.astype(np.float32)
    left, diagonal = weight.astype(np.float32), np.diag(factor)
    width = FOUR if pattern == "2:4" else BLOCK
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = np.zeros((end - start, left.shape[1]), np.float32)
        stays = np.ones(errors.shape, bool)
        for at in range(start, end):
            if (at - start) % width == 0:
                part = slice(at, min(at + width, end))
                score = np.square(left[part] / diagonal[part, None])
                stays[part.start - start : part.stop - start] = kept(score, pattern, ratio)
            gone = np.where(stays[at - start], 0.0, left[at]) / diagonal[at]
            left[at] = np.where(stays[at - start], left[at], 0.0)
            left[at + 1 : end] -= np.outer(factor[at, at + 1 : end], gone)
            errors[at - start] = gone
        left[end:] -= factor[start:end, end:].T @ errors
    return left
