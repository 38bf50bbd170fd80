"""Weights as products of two thin ones, with the least error of their layers' outputs.

The error of x @ W over inputs of second moments G = S S^T is |S^T (W - W')|_F: the best W' of a
rank is the truncated SVD of S^T W, taken back through S (SVD-LLM, arXiv 2403.07378). With G = 1 it
is the plain SVD of the weight. A pivoted QR of S^T W is nearly as good, and cheaper (rank-revealing
QR, Chan 1987); the principal components of the outputs W^T G W are the same space as the first's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from .removal import Matrix, damped

Method = Literal["whitened", "qr", "svd"]


@dataclass(frozen=True)
class Factors:
    """W [k, n] as left [k, r] @ right [r, n], for every rank r up to the full one.

    `lost` [r + 1] is the share of the outputs' power that is lost at each rank.
    """

    left: Matrix
    right: Matrix
    lost: Matrix

    def at(self, rank: int) -> tuple[Matrix, Matrix]:
        """The two factors at a rank."""
        return self.left[:, :rank], self.right[:rank]


@dataclass(frozen=True)
class Weight:
    """A weight's inputs and outputs, and what each rank of it loses, as in `Factors`."""

    k: int
    n: int
    lost: Matrix


def factors(gram: Matrix, weight: Matrix, rows: int, method: Method = "whitened") -> Factors:
    """The factors of a weight [k, n] for inputs of second moments `gram` [k, k] over `rows`."""
    wide = weight.astype(np.float64)
    if method == "whitened":
        return _whitened(damped(gram, rows)[0], wide)
    root = np.linalg.cholesky(damped(gram, rows)[0])
    if method == "svd":
        u, sizes, v = np.linalg.svd(wide, full_matrices=False)
        left, right = u * sizes, v
    else:
        basis, right = _pivoted(root.T @ wide)
        left = np.linalg.solve(root.T, basis)
    return Factors(left, right, _lost(root, left, right, wide))


def _whitened(gram: Matrix, weight: Matrix) -> Factors:
    """The SVD of S^T W by the eigenvectors of its smaller square: several times as fast.

    Where outputs are fewer those are of W^T G W, and S is not needed: left = W V, right = V^T.
    """
    if weight.shape[1] <= weight.shape[0]:
        squares, vectors = np.linalg.eigh(weight.T @ gram @ weight)
        basis = vectors[:, ::-1]
        return Factors(weight @ basis, basis.T, _left(squares))
    root = np.linalg.cholesky(gram)
    moved = root.T @ weight
    squares, vectors = np.linalg.eigh(moved @ moved.T)
    basis = vectors[:, ::-1]
    return Factors(np.linalg.solve(root.T, basis), basis.T @ moved, _left(squares))


def lost(gram: Matrix, weight: Matrix, rows: int, method: Method = "whitened") -> Matrix:
    """What `factors` loses at each rank, without the factors where they are not asked for."""
    if method != "whitened":
        return factors(gram, weight, rows, method).lost
    wide, full = weight.astype(np.float64), damped(gram, rows)[0]
    if wide.shape[1] <= wide.shape[0]:
        return _left(np.linalg.eigvalsh(wide.T @ full @ wide))
    moved = np.linalg.cholesky(full).T @ wide
    return _left(np.linalg.eigvalsh(moved @ moved.T))


def _left(squares: Matrix) -> Matrix:
    """Shares of the power that are left after each rank, of rising squared singular values."""
    falling = np.maximum(squares[::-1], 0.0)
    total = float(falling.sum()) or 1.0
    return np.maximum(1 - np.concatenate([[0.0], np.cumsum(falling)]) / total, 0.0)


def _pivoted(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Q and R with columns put back in their places, by Householder with column pivoting."""
    left, order = matrix.copy(), np.arange(matrix.shape[1])
    basis = np.zeros((len(matrix), min(matrix.shape)))
    for step in range(basis.shape[1]):
        best = step + int(np.argmax(np.sum(left[:, step:] ** 2, axis=0)))
        left[:, [step, best]], order[[step, best]] = left[:, [best, step]], order[[best, step]]
        column = left[:, step] - basis[:, :step] @ (basis[:, :step].T @ left[:, step])
        basis[:, step] = column / (np.linalg.norm(column) or 1.0)
        left[:, step + 1 :] -= np.outer(basis[:, step], basis[:, step] @ left[:, step + 1 :])
    return basis, basis.T @ matrix


def _lost(root: Matrix, left: Matrix, right: Matrix, weight: Matrix) -> Matrix:
    """The share of the outputs' power lost at each rank, whatever made the factors.

    |A - sum of r outer products|^2 is followed term by term, without forming any of them.
    """
    power = float(np.sum((root.T @ weight) ** 2)) or 1.0
    moved = root.T @ left
    inner = (moved.T @ moved) * (right @ right.T)
    cross = np.sum(moved * (root.T @ weight @ right.T), axis=0)
    made = np.cumsum(np.diag(inner) + 2 * np.sum(np.tril(inner, -1), axis=1))
    lost = power - 2 * np.cumsum(cross) + made
    return np.maximum(np.concatenate([[power], lost]) / power, 0.0)


def ranks(weights: Mapping[str, Weight], ratio: float, multiple: int = 8) -> dict[str, int]:
    """The rank of each weight that removes `ratio` of all parameters with the least loss.

    Greedy by loss per parameter, from whole weights down, in steps of `multiple`; a weight that
    stays whole is left out. Fewer are removed where no thin pair is smaller.
    """
    left = ratio * sum(each.k * each.n for each in weights.values())
    steps = [step for name, each in weights.items() for step in _steps(name, each, multiple)]
    chosen: dict[str, int] = {}
    for _, name, rank, saved in sorted(steps, key=lambda step: step[0]):
        if left <= 0:
            break
        chosen[name] = rank
        left -= saved
    return chosen


def _steps(name: str, weight: Weight, multiple: int) -> list[tuple[float, str, int, int]]:
    """(loss per parameter, name, rank, parameters saved) along the convex hull of the ranks."""
    k, n = weight.k, weight.n
    thin = [r for r in range(multiple, min(k, n), multiple) if r * (k + n) < k * n]
    hull: list[tuple[int, float, int]] = []
    for point in [(k * n, 0.0, 0), *((r * (k + n), float(weight.lost[r]), r) for r in thin[::-1])]:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [(_slope(one, two), name, two[2], one[0] - two[0]) for one, two in pairwise(hull)]


def _slope(one: tuple[int, float, int], two: tuple[int, float, int]) -> float:
    return (two[1] - one[1]) / (one[0] - two[0])
