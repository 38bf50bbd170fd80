import numpy as np
import pytest
from llmdeploy.passes import contract
from llmdeploy.passes.contract import CLOSE, EXACT, compare, error


def test_equal_arrays_differ_by_nothing():
    array = np.array([1.0, np.nan, np.inf, -0.0], np.float32)
    assert error(array, array.copy()) == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.zeros(2, np.float32), np.zeros(3, np.float32)),
        (np.zeros(2, np.float32), np.zeros(2, np.float64)),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan])),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf])),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True]), np.array([False])),
        (np.zeros(2), np.ones(2)),
    ],
)
def test_what_cannot_be_measured_is_infinite(before, after):
    assert error(before, after) == float("inf")


def test_error_is_relative_to_the_largest_element():
    assert error(np.array([100.0, 1.0]), np.array([100.0, 2.0])) == pytest.approx(0.01)


def test_float16_does_not_overflow_in_the_comparison():
    one, two = np.array([60000.0], np.float16), np.array([-60000.0], np.float16)
    assert error(one, two) == pytest.approx(2.0)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_some_elements_at_a_time_are_all_elements(at_once, monkeypatch):
    monkeypatch.setattr(contract, "AT_ONCE", at_once)
    one = np.array([[np.nan, 1.0, -8.0, 2.0], [0.0, np.inf, 3.0, 4.0]], np.float32)
    two = one + np.float32(0.5)
    assert error(one, two) == pytest.approx(0.5 / 8)
    two[1, 1] = 7.0
    assert error(one, two) == float("inf")
    nothing = np.full(4, np.nan, np.float32)
    assert error(nothing, nothing) == 0.0


def test_the_worst_output_is_named():
    before = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    after = {"a": before["a"], "b": before["b"] + np.float32(0.5)}
    worst = compare(CLOSE, before, after)
    assert (worst.tensor, worst.broken) == ("b", True)
    assert worst.error == pytest.approx(0.5)


def test_exact_allows_no_last_place():
    before = {"a": np.ones(1, np.float32)}
    after = {"a": np.nextafter(before["a"], np.float32(2))}
    assert compare(EXACT, before, after).broken
    assert not compare(CLOSE, before, after).broken


def test_a_lost_output_breaks_every_contract():
    assert compare(CLOSE, {"a": np.ones(1)}, {}).broken


def test_integers_must_stay_equal_even_where_floats_may_not():
    assert compare(CLOSE, {"a": np.array([1])}, {"a": np.array([2])}).broken
