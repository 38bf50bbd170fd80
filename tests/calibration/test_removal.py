"""Removal by second order beats its cheaper kin, and what is kept is fitted in closed form."""

import itertools

import numpy as np
import pytest
from llmdeploy.calibration.moments import Moments
from llmdeploy.calibration.removal import damped, refitted, removal_order

RANDOM = np.random.default_rng(0)
MIXED = RANDOM.normal(size=(24, 24)) * np.geomspace(1, 0.05, 24)
X = RANDOM.normal(size=(4000, 24)) @ MIXED
W = RANDOM.normal(size=(24, 8))
GRAM = X.T @ X / len(X)
EACH = np.arange(24)


def error(kept: tuple[int, ...], labels: np.ndarray) -> float:
    """What the best weights on these units still err by."""
    at = np.flatnonzero(np.isin(labels, kept))
    made = refitted(GRAM, GRAM @ W, W, at, len(X))
    return float(np.square(X @ W - X[:, at] @ made).sum() / len(X))


@pytest.mark.parametrize("labels", [EACH, EACH // 4], ids=["neurons", "heads"])
def test_second_order_errs_least(labels: np.ndarray) -> None:
    units = int(labels.max()) + 1
    errors = {
        method: error(removal_order(GRAM, W, labels, len(X), method).kept(units // 2), labels)
        for method in ("second-order", "wanda", "magnitude")
    }
    assert errors["second-order"] < 0.9 * min(errors["wanda"], errors["magnitude"])


def test_greedy_is_near_the_best_of_all_choices() -> None:
    labels = EACH // 4
    best = min(error(each, labels) for each in itertools.combinations(range(6), 3))
    assert error(removal_order(GRAM, W, labels, len(X)).kept(3), labels) <= 1.2 * best


def test_errors_told_are_those_that_fitting_leaves() -> None:
    order = removal_order(GRAM, W, EACH, len(X))
    hessian, _ = damped(GRAM, len(X))
    for count in (20, 12, 6):
        kept = np.array(order.kept(count))
        made = np.zeros_like(W)
        made[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ W)
        wanted = np.trace((W - made).T @ hessian @ (W - made))
        assert order.errors[24 - count - 1] == pytest.approx(wanted, rel=1e-3)


def test_many_units_go_as_one_by_one() -> None:
    x = RANDOM.normal(size=(900, 200)) @ RANDOM.normal(size=(200, 200))
    w, gram = RANDOM.normal(size=(200, 16)), x.T @ x / 900
    order = removal_order(gram, w, np.arange(200), 900)
    assert sorted(order.units) == list(range(200))
    inverse, left, alive = np.linalg.inv(damped(gram, 900)[0]), w.copy(), list(range(200))
    for unit in order.units[:40]:
        losses = np.square(left[alive]).sum(axis=1) / np.diag(inverse)[alive]
        mine = losses[alive.index(unit)]
        assert mine <= 1.05 * losses.min() + 1e-9
        column = inverse[:, unit] / inverse[unit, unit]
        left -= np.outer(column, left[unit])
        inverse -= np.outer(column, inverse[unit])
        alive.remove(unit)


def test_few_rows_draw_the_weights_to_what_they_were() -> None:
    x = RANDOM.normal(size=(6, 24))
    few = x.T @ x / 6
    assert damped(few, 6)[1] > damped(few, 6000)[1]
    noisy = refitted(few, few @ W + 0.1, W, EACH[:12], 6)
    assert np.isfinite(noisy).all()
    assert np.abs(noisy - W[:12]).max() < 10 * np.abs(W).max()


def test_moments_are_those_of_all_rows() -> None:
    seen, t = Moments(24, 8), X @ W + 3
    for start in range(0, len(X), 700):
        seen.add(X[start : start + 700], t[start : start + 700])
    gram, cross = seen.centred()
    np.testing.assert_allclose(gram, np.cov(X.T, bias=True), atol=1e-4)
    np.testing.assert_allclose(cross, gram @ W, atol=1e-3)
    np.testing.assert_allclose(seen.means()[1], t.mean(axis=0), atol=1e-4)
    assert seen.variance() == pytest.approx(t.var(axis=0).sum(), rel=1e-4)
