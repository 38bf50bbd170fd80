"""What int8 must cover of keys and values, and what it costs."""

import numpy as np
from llmdeploy.calibration.kept import Reach, Rounding, spread

RANDOM = np.random.default_rng(0)


def test_only_new_and_real_tokens_count() -> None:
    array = np.ones((2, 3, 5, 4), np.float32)
    array[:, :, :3] = 100  # of the past
    array[1, :, 3] = 50  # padding
    array[0, 2, 4, 1] = -7
    reach = Reach()
    reach.add(array, np.array([[True, True], [False, True]]), 2)
    wanted = np.ones((3, 4), np.float32)
    wanted[2, 1] = 7
    np.testing.assert_array_equal(reach.most, wanted)
    np.testing.assert_allclose(reach.steps(), wanted / 127)


def test_a_channel_that_is_never_reached_has_a_step() -> None:
    reach = Reach()
    reach.add(np.zeros((1, 2, 3, 4), np.float32), None, 3)
    assert (reach.steps() > 0).all()
    reach.add(np.full((1, 2, 3, 4), 8, np.float32) * [1, 0, 1, 1], None, 3)
    assert reach.steps()[0, 1] == np.float32(8e-3 / 127)


def test_what_rounding_costs_is_counted() -> None:
    array = RANDOM.normal(size=(2, 2, 6, 4)).astype(np.float32)
    reach = Reach()
    reach.add(array, None, 6)
    fine = Rounding(reach.steps())
    fine.add(array, None, 6)
    assert 0 < fine.error < 1e-4
    assert fine.saturated == 0
    coarse = Rounding(reach.steps() * np.float32(0.25))
    coarse.add(array, None, 6)
    levels = np.abs(array) / (reach.steps() / 4)[None, :, None]
    assert coarse.saturated == (levels > 127.5).mean() > 0
    assert coarse.error > 100 * fine.error


def test_half_of_the_feeds_are_moved_to_the_end() -> None:
    moved = spread([8] * 8, 1000)
    assert moved[::2] == [0, 0, 0, 0]
    assert moved[1::2] == [248, 496, 744, 992]
    assert spread([8, 8], 4) == [0, 0]
    assert spread([8], 1000) == [0]
