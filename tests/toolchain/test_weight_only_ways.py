"""Weights rounded some columns at a time: what it gives, and what memory it takes."""

import tracemalloc

import numpy as np
import pytest
from llmdeploy.calibration import SecondMoments, Watched
from llmdeploy.calibration.awq import Sharing
from llmdeploy.calibration.blockwise import Grid
from llmdeploy.calibration.second_moments import Sums
from llmdeploy.toolchain.weight_only import ways
from llmdeploy.toolchain.weight_only.recipe import Case, Method, Recipe
from llmdeploy.toolchain.weight_only.rounding import chosen, plain

GRID = Grid(4, 32, moved=True)


def moments(k: int, seed: int) -> SecondMoments:
    random = np.random.default_rng(seed)
    size = np.where(np.arange(k) % 29 == 3, 12.0, 1.0)
    sums = Sums([Watched("x")])
    sums.add({"x": (random.normal(size=(400, k)) * size).astype(np.float32)}, None, 0)
    return sums.moments()["x"]


def case(k: int, n: int) -> Case:
    weight = np.random.default_rng(3).normal(size=(k, n)).astype(np.float32)
    return Case((lambda: weight,), (GRID,), np.dtype(np.float32))


def test_to_the_nearest_it_does_not_matter_how_many_columns_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = plain(case(128, 100)).layers[0]
    monkeypatch.setattr(ways, "AT_ONCE", 128 * 7)
    parts = plain(case(128, 100)).layers[0]
    for name in ("levels", "steps", "zeros"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def in_pieces(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(ways, "AT_ONCE", 1)
    monkeypatch.setattr(ways, "COLUMNS", columns)


@pytest.mark.parametrize("method", ["awq", "gptq", "auto"])
def test_by_samples_it_gives_the_same_levels_some_columns_at_a_time(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, other, sharing = moments(128, 0), moments(128, 1), Sharing()
    recipe = Recipe(4, 32, method, moved=True)
    whole = chosen(case(128, 300), fit, other, recipe, sharing)
    in_pieces(monkeypatch, 64)
    parts = chosen(case(128, 300), fit, other, recipe, sharing)
    assert parts.power == whole.power
    assert parts.error == pytest.approx(whole.error, rel=1e-3)
    one, two = whole.layers[0], parts.layers[0]
    assert one.method == two.method
    assert (one.levels == two.levels).mean() > 0.999
    np.testing.assert_allclose(one.steps, two.steps, rtol=1e-3)


def test_how_many_columns_are_worked_on_at_a_time_changes_no_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit, other, found = moments(64, 0), moments(64, 1), list[bytes]()
    in_pieces(monkeypatch, 64)
    for workers in (1, 2, 3):
        monkeypatch.setattr("llmdeploy.calibration.threads.workers", lambda: workers)  # noqa: B023
        made = chosen(case(64, 300), fit, other, Recipe(4, 32, "gptq", moved=True), None)
        layer = made.layers[0]
        assert layer.zeros is not None
        found.append(layer.levels.tobytes() + layer.steps.tobytes() + layer.zeros.tobytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_chosen_on_some_columns_is_best_of_all(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, other = moments(64, 0), moments(64, 1)
    recipe = Recipe(bits, 32, moved=bits == 4)
    some = chosen(case(64, 600), fit, other, recipe, Sharing())
    monkeypatch.setattr(ways, "TRIED", 600)
    every = chosen(case(64, 600), fit, other, recipe, Sharing())
    assert (some.layers[0].method, some.power) == (every.layers[0].method, every.power)
    assert some.error == pytest.approx(every.error, rel=1e-3)
    np.testing.assert_array_equal(some.layers[0].zeros, every.layers[0].zeros)


def test_rounding_a_wide_weight_takes_a_few_columns_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide, fit, other = case(64, 2048), moments(64, 0), moments(64, 1)
    size, peaks = next(wide.weights).nbytes, list[int]()
    for columns in (2048, 128):
        in_pieces(monkeypatch, columns)
        tracemalloc.start()
        chosen(wide, fit, other, Recipe(4, 32, "gptq", moved=True), None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 3 * size
    assert peaks[1] < peaks[0] / 2
