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


@pytest.mark.parametrize("method", ["awq", "gptq", "auto"])
def test_by_samples_it_errs_as_little_some_columns_at_a_time(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, other, sharing = moments(128, 0), moments(128, 1), Sharing()
    recipe = Recipe(4, 32, method, moved=True)
    whole = chosen(case(128, 100), fit, other, recipe, sharing)
    monkeypatch.setattr(ways, "AT_ONCE", 128 * 7)
    parts = chosen(case(128, 100), fit, other, recipe, sharing)
    assert parts.power == whole.power
    assert parts.layers[0].method == whole.layers[0].method
    assert parts.error == pytest.approx(whole.error, rel=0.02)


def test_rounding_a_wide_weight_takes_a_few_columns_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ways, "AT_ONCE", 128 * 128)
    wide, fit, other = case(128, 1536), moments(128, 0), moments(128, 1)
    size = next(wide.weights).nbytes
    tracemalloc.start()
    chosen(wide, fit, other, Recipe(4, 32, moved=True), None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * size  # five times it with all columns at once
