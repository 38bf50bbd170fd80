"""Thin factors: the best of a rank for the inputs seen, and ranks under one budget."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmdeploy.calibration.low_rank import Method, Weight, factors, ranks

METHODS: tuple[Method, ...] = get_args(Method)


def data(k: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [400, k] that hang together, and a weight [k, n]."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(k, k)) * np.geomspace(1, 0.03, k)
    return random.normal(size=(400, k)) @ mix, random.normal(size=(k, n))


def loss(x: np.ndarray, weight: np.ndarray, method: Method, rank: int) -> float:
    left, right = factors(x.T @ x / len(x), weight, len(x), method).at(rank)
    return float(np.sum((x @ (weight - left @ right)) ** 2) / np.sum((x @ weight) ** 2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("k", "n"), [(12, 20), (20, 12)])
def test_the_full_rank_is_the_weight(method: Method, k: int, n: int) -> None:
    x, weight = data(k, n)
    left, right = factors(x.T @ x / len(x), weight, len(x), method).at(min(k, n))
    np.testing.assert_allclose(left @ right, weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_lost_is_told_for_each_rank(method: Method) -> None:
    x, weight = data(16, 24)
    told = factors(x.T @ x / len(x), weight, len(x), method).lost
    for rank in (1, 4, 9, 15):
        # The damping of a hundredth of the mean variance is the difference.
        assert told[rank] == pytest.approx(loss(x, weight, method, rank), abs=0.02)
    assert told[0] == pytest.approx(1)
    assert told[-1] == pytest.approx(0, abs=1e-9)


def test_the_inputs_decide() -> None:
    x, weight = data(32, 48)
    whitened = loss(x, weight, "whitened", 8)
    assert whitened <= loss(x, weight, "qr", 8) < loss(x, weight, "svd", 8)
    assert whitened < 0.5 * loss(x, weight, "svd", 8)


@given(st.floats(0.05, 0.9), st.integers(1, 4), st.integers(0, 9))
def test_the_budget_is_met_by_whole_steps(ratio: float, multiple: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights: dict[str, Weight] = {}
    for name, k, n in (("a", 24, 24), ("b", 24, 96), ("c", 96, 24)):
        falling = np.sort(random.uniform(size=min(k, n) + 1))[::-1]
        weights[name] = Weight(k, n, falling - falling[-1])
    chosen = ranks(weights, ratio, multiple)
    saved = 0
    for name, rank in chosen.items():
        one = weights[name]
        assert rank % multiple == 0
        saved += one.k * one.n - rank * (one.k + one.n)
        assert rank * (one.k + one.n) < one.k * one.n
    most = sum(each.k * each.n - multiple * (each.k + each.n) for each in weights.values())
    assert saved >= min(ratio * sum(each.k * each.n for each in weights.values()), most)


def test_what_is_needed_least_goes_first() -> None:
    flat = np.linspace(1, 0, 25)
    steep = np.concatenate([[1.0], np.zeros(24)])
    assert set(ranks({"flat": Weight(24, 24, flat), "steep": Weight(24, 24, steep)}, 0.2, 1)) == {
        "steep"
    }
