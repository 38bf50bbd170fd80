"""Which units of a layer's inputs can go, and what the kept weights become, without a gradient.

The error of a layer's output is quadratic in its weights, with the inputs' second moments for its
Hessian. Units go one after the other, each time the one whose loss is least once all others have
made up for it (the optimal brain surgeon, Hassibi 1993; for structures ZipLM, arXiv 2302.04089, and
for all layers of a transformer without retraining Kwon, arXiv 2204.09656).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating[Any]]
Array = Matrix
Labels = NDArray[np.int64]
Method = Literal["second-order", "wanda", "magnitude"]
#: What is added to the Hessian's diagonal, of its mean; with few rows more.
DAMPING = 1e-3
#: So many units of one input are looked at in a turn, and go in one.
CANDIDATES, TURN = 64, 16


@dataclass(frozen=True)
class Order:
    """Units in the order in which they go, and the layer's squared error after each of them."""

    units: tuple[int, ...]
    errors: tuple[float, ...]

    def kept(self, count: int) -> tuple[int, ...]:
        """The units that are left when `count` are."""
        return tuple(sorted(self.units[len(self.units) - count :])) if count else ()


def damped(gram: Matrix, rows: int) -> tuple[Matrix, float]:
    """A Hessian that can be inverted, and what was added to its diagonal.

    Fewer rows than inputs leave directions that nothing was seen of: the more of them, the
    stronger the pull to the weights as they are.
    """
    k = len(gram)
    share = DAMPING * max(1.0, (2 * k / max(rows, 1)) ** 2)
    amount = share * float(np.trace(gram)) / max(k, 1) or 1.0
    return gram + amount * np.eye(k), amount


def removal_order(
    gram: Matrix,
    weight: Matrix,
    labels: Labels,
    rows: int,
    method: Method = "second-order",
    most: int | None = None,
) -> Order:
    """In which order the units of inputs go: `gram` [k, k], `weight` [k, n], `labels` [k].

    Where no more than `most` will go, those behind them come in the order of their losses then.

    Raises:
        ValueError: a label is missing between 0 and the greatest.
    """
    units = int(labels.max()) + 1
    members = [np.flatnonzero(labels == unit) for unit in range(units)]
    if any(len(each) == 0 for each in members):
        raise ValueError("a unit has no member")
    if method != "second-order":
        return _scored(gram, weight, members, method)
    single = all(len(each) == 1 for each in members)
    hessian, _ = damped(gram, rows)
    if not single:
        return _blocks(hessian, weight, members)
    return _single(hessian, weight, labels, units if most is None else most)


def _scored(
    gram: Matrix, weight: Matrix, members: Sequence[NDArray[np.int64]], method: Method
) -> Order:
    """By one score a unit: |w|^2, or |w|^2 |x|^2 (Wanda, arXiv 2306.11695)."""
    score = np.square(weight).sum(axis=1)
    if method == "wanda":
        score = score * np.diag(gram)
    each = np.array([score[member].sum() for member in members])
    order = np.argsort(each, kind="stable")
    return Order(tuple(order.tolist()), tuple(np.cumsum(each[order]).tolist()))


def _single(hessian: Matrix, weight: Matrix, labels: Labels, most: int) -> Order:
    """Units of one input, in turns: of the cheapest some go in order, then all others make up."""
    inverse = np.linalg.inv(hessian).astype(np.float32)
    left, alive = weight.astype(np.float32), np.arange(len(hessian))
    order, errors, total = list[int](), list[float](), 0.0
    while len(alive):
        losses = np.square(left).sum(axis=1) / np.maximum(np.diag(inverse), 1e-30)
        if len(order) >= most:
            rest = np.argsort(losses, kind="stable")
            order += labels[alive[rest]].tolist()
            errors += (total + np.cumsum(losses[rest])).tolist()
            break
        cheapest = np.argsort(losses, kind="stable")[:CANDIDATES]
        rest = np.delete(losses, cheapest)
        bound = float(rest.min()) if len(rest) else np.inf
        gone, costs = _turn(inverse[np.ix_(cheapest, cheapest)], left[cheapest], bound)
        at = cheapest[gone]
        order += labels[alive[at]].tolist()
        errors += (total + np.cumsum(costs)).tolist()
        total = errors[-1]
        stays = np.setdiff1d(np.arange(len(alive)), at)
        step = np.linalg.solve(inverse[np.ix_(at, at)], inverse[np.ix_(at, stays)])
        left = left[stays] - step.T @ left[at]
        inverse = inverse[np.ix_(stays, stays)] - inverse[np.ix_(stays, at)] @ step
        alive = alive[stays]
    return Order(tuple(order), tuple(errors))


def _turn(inverse: Array, left: Array, bound: float) -> tuple[list[int], list[float]]:
    """Those that go while they cost less than all that are no candidates, and what each costs."""
    gone, costs = list[int](), list[float]()
    alive = np.ones(len(left), bool)
    while len(gone) < TURN and alive.any():
        diagonal = np.maximum(np.diag(inverse), 1e-30)
        losses = np.where(alive, np.square(left).sum(axis=1) / diagonal, np.inf)
        unit = int(np.argmin(losses))
        if gone and losses[unit] > bound:
            break
        column = inverse[:, unit] / diagonal[unit]
        left = left - np.outer(column, left[unit])
        inverse = inverse - np.outer(column, inverse[unit])
        alive[unit] = False
        gone.append(unit)
        costs.append(float(losses[unit]))
    return gone, costs


def _blocks(hessian: Matrix, weight: Matrix, members: Sequence[NDArray[np.int64]]) -> Order:
    """Units of several inputs, such as heads."""
    inverse, left = np.linalg.inv(hessian), weight.copy()
    alive, order, errors, total = list(range(len(members))), list[int](), list[float](), 0.0
    while alive:
        losses = [_loss(inverse, left, members[unit]) for unit in alive]
        place = int(np.argmin(losses))
        unit = alive.pop(place)
        total += losses[place]
        at = members[unit]
        step = np.linalg.solve(inverse[np.ix_(at, at)] + 1e-12 * np.eye(len(at)), inverse[at])
        left -= step.T @ left[at]
        inverse -= inverse[:, at] @ step
        inverse[at], inverse[:, at] = 0.0, 0.0
        order.append(unit)
        errors.append(total)
    return Order(tuple(order), tuple(errors))


def _loss(inverse: Matrix, weight: Matrix, at: NDArray[np.int64]) -> float:
    """tr(W_S^T [(H^-1)_SS]^-1 W_S)."""
    block = inverse[np.ix_(at, at)] + 1e-12 * np.eye(len(at))
    return float(np.sum(weight[at] * np.linalg.solve(block, weight[at])))


def refitted(
    gram: Matrix, cross: Matrix, weight: Matrix, kept: NDArray[np.int64], rows: int
) -> Matrix:
    """The weights [kept, n] that give the targets best, drawn a little to those they were.

    The least of |x_kept w - t|^2 + d |w - weight_kept|^2, d the damping; `cross` [k, n] is of the
    inputs and the wanted outputs.
    """
    inner = gram[np.ix_(kept, kept)]
    hessian, amount = damped(inner, rows)
    return np.linalg.solve(hessian, cross[kept] + amount * weight[kept])
