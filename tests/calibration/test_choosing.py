"""Choices against what brute force on the same rows says."""

from dataclasses import replace

import numpy as np
import pytest
from llmdeploy.calibration import Case, Freedom, Size, Watched, choose, collect
from llmdeploy.calibration.choosing import evaluated
from llmdeploy.calibration.learning import Terms, gradient, learn
from llmdeploy.calibration.outlying import find_outliers, without
from llmdeploy.calibration.rounding import (
    Compensation,
    compensated,
    nearest,
    rounded,
    rounded_weight,
    steps_of,
)


def seen(x: np.ndarray):
    runs = [({"x": x[None].astype("f4")}, None)]
    return collect(runs, [Watched("x")], size=Size(2048), seed=0)["x"]


def case(x: np.ndarray, w: np.ndarray, freedom: Freedom | None = None) -> Case:
    half = len(x) // 2
    return Case.of(seen(x[:half]), seen(x[half:]), [w.astype("f4")], freedom or Freedom())


def rows(channels: int = 64, seed: int = 0) -> np.ndarray:
    """Channels of very different sizes."""
    random = np.random.default_rng(seed)
    return random.normal(size=(2000, channels)) * np.exp(random.normal(size=channels) * 1.5)


W = np.random.default_rng(9).normal(size=(64, 48))


def error(x: np.ndarray, w: np.ndarray, choice) -> float:
    scale = np.ones(len(w)) if choice.scale is None else choice.scale
    y = x @ w
    moved = choice.apply(x.astype("f4"))
    wrong = y - rounded(moved, choice.step) @ rounded_weight((w * scale[:, None]).astype("f4"))
    return float((wrong - wrong.mean(0)).var() / (y - y.mean(0)).var())


def test_smoothing_beats_none_and_says_by_how_much():
    x = rows()
    made = case(x, W)
    best = choose(made)
    plain = evaluated(made, replace(best, scale=None, shift=None, amax=float(np.abs(x).max())))
    assert best.scale is not None
    assert best.errors[0] < plain.errors[0] / 4
    # measured on other rows than those it was chosen by
    assert error(rows(seed=0)[1000:], W, best) == pytest.approx(best.errors[0], rel=0.2)


def test_what_may_not_be_smoothed_is_not():
    best = choose(case(rows(), W, Freedom(smooth=False)))
    assert (best.scale, best.shift, best.strength) == (None, None, None)


def test_a_shift_where_the_place_allows_one():
    x = np.abs(rows())
    kinds = {kind: choose(case(x, W, Freedom(kind))) for kind in ("none", "scalar", "channel")}
    assert kinds["none"].shift is None
    steps = kinds["scalar"].shift / kinds["scalar"].scale / kinds["scalar"].step
    np.testing.assert_allclose(steps, np.rint(steps[0]), rtol=1e-4)
    assert kinds["scalar"].errors[0] < 0.7 * kinds["none"].errors[0]
    assert kinds["channel"].errors[0] < 0.7 * kinds["none"].errors[0]


def test_where_a_scale_costs_time_a_shift_alone_is_taken_if_it_does():
    """Channels of one width around middles far apart: moved, they are as good as scaled."""
    random = np.random.default_rng(3)
    x = random.uniform(-1, 1, (2000, 64)) + 20 * random.normal(size=64)
    dear = Freedom("channel", scaling=0.35, picking=0.2)
    best = choose(case(x, W, dear))
    assert best.strength is None
    np.testing.assert_array_equal(best.scale, np.ones(64))
    assert best.errors[0] < choose(case(x, W)).errors[0] / 10
    assert choose(case(rows(), W, dear)).strength is not None


def test_heads_that_share_their_values_get_one_scale():
    best = choose(case(rows(), W, Freedom(repeat=2, width=16)))
    heads = best.scale.reshape(2, 2, 16)
    np.testing.assert_array_equal(heads[:, 0], heads[:, 1])


def test_a_channel_beyond_all_others_stays_in_float():
    x, w = np.random.default_rng(0).normal(size=(2000, 64)), W.copy()
    # one channel, and its weight to one output, far beyond all: rare, as attention sinks are
    x[:, 5] = np.where(np.arange(len(x)) % 50 == 0, 900.0, x[:, 5] / 100)
    w[5] /= 10
    w[5, 7] = 40.0
    importance = np.where(np.arange(len(x)) % 50 == 0, 1e-6, 1.0).astype("f4")
    half = len(x) // 2
    runs = [seen(x[:half]), seen(x[half:])]
    runs = [replace(each, importance=importance[: len(each.sample)]) for each in runs]
    made = Case.of(*runs, [w.astype("f4")], Freedom())
    assert find_outliers(made) == (5,)
    assert not without(made, (5,)).weights[0][5].any()
    assert choose(made).outliers == (5,)


def test_channels_alike_have_no_outliers():
    x = np.random.default_rng(0).normal(size=(500, 64))
    assert find_outliers(case(x, W)) == ()


def test_the_gradient_is_that_of_the_error():
    random = np.random.default_rng(0)
    for shift in ("none", "scalar", "channel"):
        terms = Terms(
            low=-np.exp(random.normal(size=12)),
            high=np.exp(random.normal(size=12)),
            variance=np.exp(random.normal(size=12)),
            weights=random.normal(size=(12, 8)),
            shift=shift,
        )
        logs = np.log(np.abs(terms.weights))
        norms = np.square(terms.weights).sum(axis=1)

        def value(log_scale, terms=terms, logs=logs, norms=norms, shift=shift):
            scale = np.exp(log_scale)

            def peak(v):
                return (np.maximum(v, 0) ** 24).sum() ** (1 / 24)

            if shift == "scalar":
                step = (peak(terms.high / scale) + peak(-terms.low / scale)) / 2 / 127
            elif shift == "channel":
                step = peak((terms.high - terms.low) / 2 / scale) / 127
            else:
                step = peak(np.maximum(-terms.low, terms.high) / scale) / 127
            columns = ((np.exp(logs) * scale[:, None]) ** 24).sum(axis=0) ** (1 / 24) / 127
            weight = 0.5 * (columns**2).sum() / 12 * (terms.variance / scale**2).sum()
            return np.log(step**2 / 12 * (scale**2 * norms).sum() + weight)

        at = random.normal(size=12) / 4
        found = gradient(terms, logs.astype("f4"), norms, at)
        moves = np.eye(12) * 1e-5
        wanted = [(value(at + move) - value(at - move)) / 2e-5 for move in moves]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_learning_lowers_the_expected_error():
    random = np.random.default_rng(0)
    terms = Terms(
        low=-np.exp(random.normal(size=64) * 2),
        high=np.exp(random.normal(size=64) * 2),
        variance=np.exp(random.normal(size=64)),
        weights=random.normal(size=(64, 32)),
        shift="none",
    )

    def expected(scale):
        step = (np.maximum(-terms.low, terms.high) / scale).max()
        columns = np.abs(terms.weights * scale[:, None]).max(axis=0)
        norms = np.square(terms.weights).sum(axis=1)
        spread = (terms.variance / scale**2).sum()
        return step**2 * (scale**2 * norms).sum() + 0.5 * (columns**2).sum() * spread

    start = np.sqrt(np.maximum(-terms.low, terms.high))
    assert expected(learn(terms, start)) < 0.7 * expected(start)


def test_compensated_rounding_errs_less_where_channels_are_correlated():
    random = np.random.default_rng(0)
    x = random.normal(size=(4000, 24)) @ random.normal(size=(24, 96))
    x += random.normal(size=x.shape) / 10
    w = random.normal(size=(96, 40)).astype("f4")
    steps = steps_of(w) * 8
    plain = nearest(w, steps) * steps
    better = compensated(w, steps, Compensation.of(np.cov(x.T))) * steps
    errors = [np.square(x @ (w - each)).mean() for each in (plain, better)]
    assert errors[1] < 0.5 * errors[0]


def test_rounding_is_half_to_even_and_clamped():
    x = np.array([0.5, 1.5, 2.5, -0.5, 200.0, -200.0], np.float32)
    np.testing.assert_array_equal(rounded(x, 1.0), [0, 2, 2, 0, 127, -128])


def test_a_weight_of_zeros_has_a_step():
    w = np.zeros((4, 3), np.float32)
    assert (steps_of(w) > 0).all()
    assert not nearest(w, steps_of(w)).any()


def test_cut_off_is_what_rounds_beyond_the_last_levels():
    """Half a step beyond the last level still rounds to it: nothing is lost there."""
    choice = replace(choose(case(rows(), W)), scale=None, shift=None, amax=127.0, outliers=(3,))
    x = np.array([[127.4, 127.6, -128.4, 500.0], [-128.6, 0.0, -127.0, -500.0]], np.float32)
    assert choice.cut_off(x).tolist() == [[False, True, False, False], [True, False, False, False]]
