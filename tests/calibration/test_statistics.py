import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmdeploy import CalibrationError
from llmdeploy.calibration import Size, Watched, ahead, collect
from llmdeploy.calibration.histogram import BINS, Histogram
from llmdeploy.calibration.observers import Entropy, MeanSquare, MinMax, Percentile
from llmdeploy.calibration.second_moments import Sums


def seen(batches, real=None, *, stream=None, size=64):
    masks = real or [None] * len(batches)
    runs = [({"x": x}, mask) for x, mask in zip(batches, masks, strict=True)]
    return collect(runs, [Watched("x", stream)], size=Size(size), seed=0)["x"]


def test_padding_counts_in_nothing():
    random = np.random.default_rng(0)
    x = random.normal(size=(4, 6, 8)).astype(np.float32)
    mask = np.arange(6) < np.array([[6], [3], [1], [5]])
    padded = x.copy()
    padded[~mask] = 1e6
    clean = seen([x[mask][None]])
    found = seen([padded], [mask])
    for name in ("low", "high", "mean", "sample", "rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(clean, name))
    np.testing.assert_array_equal(found.histogram.counts, clean.histogram.counts)


@pytest.mark.parametrize("length", [6, 4])
def test_padding_counts_in_nothing_where_tokens_come_first(length: int):
    """Of as many texts as tokens, too, where only the names of the dimensions tell them apart."""
    x = np.random.default_rng(0).normal(size=(length, 4, 8)).astype(np.float32)
    mask = np.arange(length) < np.array([[length], [3], [1], [2]])
    x[~mask.T] = 1e6
    watched = [Watched("x", turned=True)]
    found = collect([({"x": x}, mask)], watched, size=Size(64), seed=0)["x"]
    assert (found.rows, found.high.max() < 1e6) == (mask.sum(), True)
    sums = Sums(watched)
    sums.add({"x": x}, mask, 0)
    assert sums.moments()["x"].size.max() < 1e6


def test_batches_do_not_matter_to_what_is_counted():
    x = np.random.default_rng(0).normal(size=(32, 5, 8)).astype(np.float32)
    one, many = seen([x]), seen([x[i : i + 4] * 1 for i in range(0, 32, 4)])
    np.testing.assert_array_equal(one.low, many.low)
    np.testing.assert_array_equal(one.histogram.counts, many.histogram.counts)
    np.testing.assert_array_equal(np.sort(one.sample, axis=0), np.sort(many.sample, axis=0))
    np.testing.assert_allclose(one.mean, many.mean, rtol=1e-5, atol=1e-7)


def test_the_sample_is_bounded_and_uniform():
    batches = [np.full((100, 1), i, np.float32) for i in range(50)]
    found = seen(batches, size=1000)
    assert found.sample.shape == (1000, 1)
    counts = np.bincount(found.sample[:, 0].astype(int), minlength=50)
    # a uniform draw of 1000 of 5000: 20 +- 4 a batch, five deviations allowed
    assert counts.min() >= 1
    assert counts.max() <= 40


def test_a_sample_that_is_not_full_holds_every_row():
    x = np.arange(1, 41, dtype=np.float32).reshape(8, 5, 1)
    found = seen([x[:3], x[3:]], size=64)
    np.testing.assert_array_equal(np.sort(found.sample[:, 0]), np.arange(1, 41))


def test_activations_with_rows_of_their_own_are_sampled_from_those():
    """A text and an image tower, and their pooled rows: none is given another's places."""
    random = np.random.default_rng(0)
    rows = {"text": 20, "queries": 20, "image": 50, "pooled": 4}
    runs = [
        ({name: random.normal(size=(r, 3)).astype(np.float32) for name, r in rows.items()}, None)
        for _ in range(30)
    ]
    for arrays, _ in runs:
        arrays["queries"] = arrays["text"]
    found = collect(runs, [Watched(name) for name in rows], size=Size(256), seed=0)
    for name, each in found.items():
        offered = {row.tobytes() for arrays, _ in runs for row in arrays[name]}
        kept = {row.tobytes() for row in each.sample}
        assert len(kept) == len(each.sample) == min(256, 30 * rows[name])
        assert kept <= offered
    np.testing.assert_array_equal(found["text"].sample, found["queries"].sample)


def test_moments_of_pooled_rows_come_from_all_of_them():
    """They are fewer than the tokens that are expected, whose share says nothing of them."""
    random, mask = np.random.default_rng(0), np.ones((2, 300), bool)
    runs = [({"x": random.normal(size=(2, 4)).astype(np.float32)}, mask) for _ in range(8)]
    size = Size(64, moment_rows=10, expected=8 * mask.size)
    found = collect(runs, [Watched("x")], size=size, seed=0)["x"]
    every = np.concatenate([arrays["x"] for arrays, _ in runs])[:10]
    np.testing.assert_allclose(found.variance, every.var(axis=0), rtol=1e-4)


def test_rows_that_are_no_tokens_are_all_counted():
    runs = [({"x": np.ones((2, 4), np.float32)}, np.array([[1, 0, 0]] * 2, bool))]
    found = collect(runs, [Watched("x", tokens=False)], size=Size(8), seed=0)["x"]
    assert found.rows == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_names_tensor_and_sample(bad: float):
    x = np.zeros((4, 3, 2), np.float32)
    x[2, 1, 0] = bad
    with pytest.raises(CalibrationError, match="tensor x, sample 2 of batch 1"):
        seen([np.zeros_like(x), x])


@pytest.mark.parametrize("shape", [(12, 5), (3, 4, 5)])
def test_what_is_not_a_number_is_told_of_the_text_whose_token_it_is(shape: tuple[int, ...]):
    """Where all tokens are one dimension too, and whatever padding before it holds."""
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
    x = np.zeros((3, 4, 5), np.float32)
    x[0, 3], x[2, 1] = np.nan, np.inf
    with pytest.raises(CalibrationError, match="tensor x, sample 2 of batch 0"):
        seen([x.reshape(shape)], [mask])


def test_moments_come_evenly_from_all_that_is_expected():
    """Half of the batches are of another scale; the first rows alone would not show it."""
    random = np.random.default_rng(0)
    batches = [
        random.normal(size=(1, 100, 4)).astype(np.float32) * (1 + (i // 50)) for i in range(100)
    ]
    size = Size(64, moment_rows=1000, expected=10_000)
    found = collect([({"x": x}, None) for x in batches], [Watched("x")], size=size, seed=0)["x"]
    np.testing.assert_allclose(found.variance, 2.5, rtol=0.15)
    first = collect(
        [({"x": x}, None) for x in batches], [Watched("x")], size=Size(64, 1000), seed=0
    )["x"]
    np.testing.assert_allclose(first.variance, 1.0, rtol=0.15)


def test_working_ahead_changes_neither_order_nor_errors():
    assert list(ahead(iter(range(5)))) == list(range(5))

    def failing():
        yield 1
        raise CalibrationError("no more")

    found = ahead(failing())
    assert next(found) == 1
    with pytest.raises(CalibrationError, match="no more"):
        next(found)


def test_nothing_but_padding():
    with pytest.raises(CalibrationError, match="no sample"):
        seen([np.zeros((1, 2, 4), np.float32)], [np.zeros((1, 2), bool)])


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1), st.integers(1, 8))
def test_growing_a_histogram_gives_what_counting_at_once_gives(values: list[float], parts: int):
    whole = Histogram.of(np.array(values, np.float32))
    pieces = [
        Histogram.of(np.array(v, np.float32)) for v in np.array_split(values, parts) if len(v)
    ]
    total = pieces[0]
    for piece in pieces[1:]:
        total = total + piece
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert (total.exponent, total.peak) == (whole.exponent, whole.peak)
    assert total.total == len(values)


def test_half_of_the_bins_are_in_use():
    histogram = Histogram.of(np.linspace(0, 3, 100_000, dtype=np.float32))
    assert BINS / 2 <= np.flatnonzero(histogram.counts).max() + 1 <= BINS


def test_observers_against_the_sorted_values():
    x = np.random.default_rng(0).standard_t(4, size=200_000).astype(np.float32)
    histogram = Histogram.of(x)
    assert MinMax().amax(histogram) == np.abs(x).max()
    exact = np.quantile(np.abs(x), 0.999)
    assert abs(Percentile(99.9).amax(histogram) - exact) <= 2 * histogram.width
    chosen, peak = MeanSquare().amax(histogram), float(np.abs(x).max())

    def error(amax: float) -> float:
        step = amax / 127
        return float(((np.clip(np.rint(x / step), -128, 127) * step - x) ** 2).mean())

    best = min(error(amax) for amax in np.linspace(peak / 10, peak, 96))
    assert error(chosen) <= 1.02 * best
    assert 0 < Entropy().amax(histogram) <= peak


@pytest.mark.parametrize("observer", [MinMax(), Percentile(), MeanSquare(), Entropy()])
def test_observers_of_little_and_of_nothing(observer):
    assert observer.amax(Histogram.of(np.zeros(5, np.float32))) == 0
    assert 0 < observer.amax(Histogram.of(np.array([3.0], np.float32))) <= 3
