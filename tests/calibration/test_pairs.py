import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from llmdeploy.calibration import Compensation, compensated, nearest, pairs, steps_of

LEVELS = arrays(
    np.int8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-127, 127)
)


def worst(levels: np.ndarray) -> int:
    """The most that two products of neighbours come to, whatever the uint8 activations are."""
    wide = levels.astype(np.int64)
    wide = np.concatenate([wide, np.zeros((len(wide) % 2, wide.shape[1]), np.int64)])
    first, second = wide[::2], wide[1::2]
    up = 255 * (np.maximum(first, 0) + np.maximum(second, 0))
    down = 255 * (np.minimum(first, 0) + np.minimum(second, 0))
    return int(max(up.max(initial=0), -down.min(initial=0)))


@given(LEVELS)
def test_fitted_pairs_fit_in_sixteen_bits_and_keep_what_already_does(levels: np.ndarray) -> None:
    made = pairs.fitted(levels)
    assert made.shape == levels.shape
    assert made.dtype == np.int8
    assert worst(made) <= 32767
    assert np.array_equal(made, levels) == (worst(levels) <= 255 * pairs.LIMIT)


@settings(max_examples=40)
@given(st.integers(-127, 127), st.integers(-127, 127))
def test_no_other_levels_that_fit_are_nearer(first: int, second: int) -> None:
    made = pairs.fitted(np.array([[first], [second]], np.int8)).astype(int)
    one, two = np.meshgrid(np.arange(-127, 128), np.arange(-127, 128))
    fit = (one * two <= 0) | (abs(one + two) <= pairs.LIMIT)
    least = ((one - first) ** 2 + (two - second) ** 2)[fit].min()
    assert (made[0, 0] - first) ** 2 + (made[1, 0] - second) ** 2 == least


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 9))
def test_compensated_rounding_leaves_each_pair_its_room(seed: int, k: int, n: int) -> None:
    random = np.random.default_rng(seed)
    weight = (random.standard_normal((k, n)) ** 3).astype(np.float32)
    x = random.standard_normal((3 * k, k)) * random.uniform(0.1, 3, k)
    made = Compensation.of(x.T @ x / len(x))
    assert worst(compensated(weight, steps_of(weight), made, paired=True)) <= 32767


def test_steps_cost_less_than_half_the_levels_would() -> None:
    """`reduce_range` is the other way; its noise is four times that of eight bits."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((512, 64)).astype(np.float32)
    steps = steps_of(weight)
    plain = weight - nearest(weight, steps) * steps
    halved = weight - nearest(weight, 2 * steps) * (2 * steps)
    wider = pairs.steps_of(weight, steps, np.ones(512, np.float32))
    levels = pairs.fitted(nearest(weight, wider))
    ours = weight - levels * wider
    assert (halved**2).mean() > 3.5 * (plain**2).mean()
    assert (ours**2).mean() < 2 * (plain**2).mean()


def test_inputs_that_are_large_decide_the_step() -> None:
    weight = np.full((4, 1), 0.02, np.float32)
    weight[0], weight[1] = 1, 1
    power = np.array([1e-9, 1e-9, 1, 1], np.float32)
    narrow = steps_of(weight)
    assert pairs.steps_of(weight, narrow, power)[0] < pairs.steps_of(weight, narrow, 1 / power)[0]
