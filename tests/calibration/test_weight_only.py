"""Rounding by blocks: grids, compensation, scales of channels; on weights and rows made here."""

import numpy as np
import pytest
from llmdeploy import CalibrationError
from llmdeploy.calibration import SecondMoments, Watched
from llmdeploy.calibration.awq import Sharing, scales
from llmdeploy.calibration.blockwise import (
    Grid,
    fitting,
    nearest,
    reaching,
    restored,
)
from llmdeploy.calibration.gptq import Compensations, rounded
from llmdeploy.calibration.second_moments import Sums
from llmdeploy.calibration.steps import searched, shifted

GRID = Grid(4, 32)


def rows(count: int, k: int, seed: int = 0) -> np.ndarray:
    """Rows whose channels depend on each other, a few of them far larger than the others."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(k, k)) / np.sqrt(k)
    size = np.where(np.arange(k) % 29 == 3, 12.0, 1.0)
    hidden = random.normal(size=(count, k)) @ (mix + 0.3 * np.eye(k))
    return (hidden * size).astype(np.float32)


def moments(x: np.ndarray) -> SecondMoments:
    sums = Sums([Watched("x")])
    for part in np.array_split(x, 5):
        sums.add({"x": part}, None, 0)
    return sums.moments()["x"]


def weight(k: int = 128, n: int = 48, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(k, n)).astype(np.float32)


def test_moments_are_those_of_all_rows_at_once():
    x = rows(1300, 64)
    found = moments(x)
    np.testing.assert_allclose(found.parts[0], x.T @ x / len(x), rtol=1e-4, atol=1e-3)
    w = weight(64)
    assert found.power(w) == pytest.approx(float(np.square(x @ w).mean(0).sum()), rel=1e-4)
    s = np.linspace(0.5, 2, 64).astype(np.float32)
    assert found.scaled(s).power(w) == pytest.approx(moments(x / s).power(w), rel=1e-4)


def test_a_wide_activation_is_cut_into_aligned_parts(monkeypatch):
    monkeypatch.setattr("llmdeploy.calibration.second_moments.WIDEST", 200)
    found = moments(rows(700, 384))
    assert [len(part) for part in found.parts] == [128, 256]
    assert len(found.diagonal) == 384


@pytest.mark.parametrize("way", ["nearest", "compensated"])
@pytest.mark.parametrize("middle", [0.0, 0.5, -3.0])
def test_eight_bits_with_zero_points_stand_for_the_weight(way: str, middle: float):
    """Levels counted from a zero point of 8 bits reach to 255 either way."""
    grid, w = Grid(8, 32, moved=True), weight() + np.float32(middle)
    steps, zeros = shifted(w, grid, np.ones(len(w), np.float32))
    levels = nearest(w, steps, grid, zeros)
    if way == "compensated":
        shared = Compensations.of(moments(rows(600, len(w))), 0.01, ordered=True)
        levels, steps = rounded(w, steps, grid, shared, zeros=zeros)
    assert np.abs(restored(levels, steps, grid) - w).max() < 0.1
    there = levels.reshape(len(zeros), 32, -1) + zeros[:, None]
    assert there.min() >= -128
    assert there.max() <= 127


@pytest.mark.parametrize(("k", "block", "fits"), [(576, 128, 64), (1536, 128, 128), (100, 32, 0)])
def test_blocks_divide_the_inputs(k: int, block: int, fits: int):
    assert fitting(k, block) == fits


@pytest.mark.parametrize("grid", [Grid(4, 32), Grid(4, 0), Grid(8, 0), Grid(8, 64)])
def test_the_nearest_is_half_a_step_away_at_most(grid: Grid):
    w = weight()
    steps = reaching(w, grid)
    levels = nearest(w, steps, grid)
    assert np.abs(levels).max() <= grid.top
    wrong = np.abs(restored(levels, steps, grid) - w)
    assert (wrong <= 0.5001 * grid.spread(steps, len(w))).all()


def test_a_block_of_zeros_has_a_positive_step():
    w = weight()
    w[:32] = 0
    steps = searched(w, GRID)
    assert (steps > 0).all()
    assert not nearest(w, steps, GRID)[:32].any()


def test_each_method_errs_less_than_the_one_before_on_rows_it_has_not_seen():
    w, fit, other = weight(), moments(rows(4000, 128)), moments(rows(2000, 128, seed=9))

    def error(levels: np.ndarray, steps: np.ndarray) -> float:
        return other.power(w - restored(levels, steps, GRID)) / other.power(w)

    plain = reaching(w, GRID)
    found = searched(w, GRID, fit.diagonal)
    shared = Compensations.of(fit, 0.01, ordered=True)
    errors = [
        error(nearest(w, plain, GRID), plain),
        error(nearest(w, found, GRID), found),
        error(*rounded(w, found, GRID, shared, sweeps=(0,))),
        error(*rounded(w, found, GRID, shared)),
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_without_act_order_channels_go_in_their_own():
    shared = Compensations.of(moments(rows(900, 64)), 0.01, ordered=False)
    assert list(shared.parts[0].order) == list(range(64))


def test_channels_that_share_a_head_share_a_scale():
    fit = moments(rows(4000, 128))
    scale, power = scales([weight()], fit, [GRID], Sharing(repeat=2, width=16))
    assert 0 < power <= 1
    heads = scale.reshape(-1, 2, 16)
    np.testing.assert_array_equal(heads[:, 0], heads[:, 1])


def test_scaling_channels_of_unlike_size_is_of_use():
    w, fit = weight(), moments(rows(4000, 128))
    scale, _ = scales([w], fit, [GRID], Sharing())

    def error(s: np.ndarray) -> float:
        wide = w * s[:, None]
        steps = reaching(wide, GRID)
        return fit.power(w - restored(nearest(wide, steps, GRID), steps, GRID) / s[:, None])

    assert error(scale) < error(np.ones(128, np.float32))


def test_nan_is_named():
    bad = {"x": np.array([[1.0, np.nan]], np.float32)}
    with pytest.raises(CalibrationError, match="NaN or Inf, tensor x, batch 4"):
        Sums([Watched("x")]).add(bad, None, 4)


def test_activations_whose_squares_are_no_numbers_are_refused() -> None:
    sums = Sums([Watched("x", None)])
    with np.errstate(over="ignore"):
        sums.add({"x": np.full((2, 4), 1e25, np.float32)}, None, 0)
        with pytest.raises(CalibrationError, match="so large"):
            sums.moments()


def test_zero_points_move_the_grid_to_where_weights_are():
    w = weight() + np.repeat(np.linspace(-1, 1, 4), 32)[:, None].astype(np.float32)
    grid, moved = GRID, Grid(4, 32, moved=True)
    steps, zeros = shifted(w, moved)
    levels = nearest(w, steps, moved, zeros)
    stored = levels + np.repeat(zeros, 32, axis=0)
    assert stored.min() >= -8
    assert stored.max() <= 7
    assert np.abs(zeros).max() > 0
    plain = searched(w, grid)
    wrong = np.square(w - restored(levels, steps, moved)).mean()
    assert wrong < 0.8 * np.square(w - restored(nearest(w, plain, grid), plain, grid)).mean()


def test_compensation_keeps_within_a_moved_grid():
    w, moved, found = weight() + np.float32(0.5), Grid(4, 32, moved=True), moments(rows(800, 128))
    steps, zeros = shifted(w, moved, found.diagonal)
    shared = Compensations.of(found, 0.01, ordered=True)
    levels, fitted = rounded(w, steps, moved, shared, zeros=zeros)
    stored = levels + np.repeat(zeros, 32, axis=0)
    assert stored.min() >= -8
    assert stored.max() <= 7
    nearby = restored(nearest(w, steps, moved, zeros), steps, moved)
    assert found.power(w - restored(levels, fitted, moved)) < 0.8 * found.power(w - nearby)


def by_the_book(w: np.ndarray, steps: np.ndarray, found: SecondMoments) -> np.ndarray:
    """GPTQ as its paper has it, by the factor of an inverse, one channel at a time."""
    h = found.parts[0].astype(np.float64)
    order = np.argsort(-h.diagonal(), kind="stable")
    h += 0.01 * h.diagonal().mean() * np.eye(len(h))
    factor = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    left, levels = w[order].astype(np.float64), np.empty(w.shape, np.int8)
    for row, channel in enumerate(order):
        step = steps[channel // 32]
        level = np.clip(np.rint(left[row] / step), -8, 7)
        levels[channel] = level
        left[row:] -= np.outer(factor[row, row:], (left[row] - level * step) / factor[row, row])
    return levels


def test_compensation_is_that_of_the_paper_without_an_inverse():
    w, found = weight(256), moments(rows(800, 256))
    steps = searched(w, GRID, found.diagonal)
    shared = Compensations.of(found, 0.01, ordered=True)
    made, kept = rounded(w, steps, GRID, shared, sweeps=(0,))
    np.testing.assert_array_equal(kept, steps)
    # a weight in the middle of two levels may go either way in float32, and others follow it
    assert (made == by_the_book(w, steps, found)).mean() > 0.98


def test_moments_that_rounding_drowned_are_damped_more():
    random = np.random.default_rng(0)
    drowned = random.standard_normal((160, 160)).astype(np.float32) * np.float32(1e-6)
    drowned += drowned.T
    np.fill_diagonal(drowned, 1e-6)
    found = SecondMoments(np.ones(160, np.float32), (drowned,))
    factor = Compensations.of(found, 0.01, ordered=True).parts[0].factor
    assert np.isfinite(factor).all()
    assert (factor.diagonal() > 0).all()


@pytest.mark.parametrize("widest", [4096, 200])
@pytest.mark.parametrize("block", [0, 16, 32, 128])
def test_with_every_turn_of_channels_and_scales_the_error_falls(monkeypatch, widest, block):
    monkeypatch.setattr("llmdeploy.calibration.second_moments.WIDEST", widest)
    w, found, grid = weight(256), moments(rows(800, 256)), Grid(4, block)
    steps = searched(w, grid, found.diagonal)
    shared = Compensations.of(found, 0.01, ordered=True)
    errors = list[float]()
    for turns in range(5):
        levels, fitted = rounded(w, steps, grid, shared, sweeps=(turns,))
        errors.append(found.power(w - restored(levels, fitted, grid)))
    assert errors[1] < 0.97 * errors[0]
    assert errors == sorted(errors, reverse=True)
    assert (np.array_equal(fitted, steps)) is (block == 0)


def test_in_the_end_no_level_alone_can_be_better():
    w, found = weight(256), moments(rows(800, 256))
    steps = searched(w, Grid(4, 0), found.diagonal)
    shared = Compensations.of(found, 0.01, ordered=True)
    levels, _ = rounded(w, steps, Grid(4, 0), shared, sweeps=(30,))
    least = found.power(w - restored(levels, steps, Grid(4, 0)))
    for channel in (0, 7, 130, 255):
        for by in (-1, 1):
            moved = levels.copy()
            moved[channel] = np.clip(moved[channel] + by, -8, 7)
            assert found.power(w - restored(moved, steps, Grid(4, 0))) >= least * (1 - 1e-6)


def test_steps_are_such_as_the_graph_can_hold():
    w, found = weight(256), moments(rows(800, 256))
    held = lambda steps: steps.astype(np.float16).astype(np.float32)  # noqa: E731
    steps = held(searched(w, GRID, found.diagonal))
    shared = Compensations.of(found, 0.01, ordered=True)
    _, fitted = rounded(w, steps, GRID, shared, held)
    np.testing.assert_array_equal(fitted, held(fitted))
    assert (fitted != steps).mean() > 0.5


def test_a_channel_that_is_never_there_is_rounded_to_the_nearest():
    x = rows(800, 64)
    x[:, 5] = 0
    w, found = weight(64), moments(x)
    steps = searched(w, Grid(4, 0), found.diagonal)
    shared = Compensations.of(found, 0.01, ordered=True)
    levels, _ = rounded(w, steps, Grid(4, 0), shared)
    np.testing.assert_array_equal(levels[5], nearest(w, steps, Grid(4, 0))[5])
