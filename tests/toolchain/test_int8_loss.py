import numpy as np
import pytest
import torch
from llmdeploy.toolchain.int8.loss import AT_ONCE, Loss, cosines, divergence, rows
from llmdeploy.toolchain.int8.search import few

RANDOM = np.random.default_rng(0)


def loss_of(one: np.ndarray, two: np.ndarray, mask=None, **options) -> float:
    feed = {} if mask is None else {"mask": np.asarray(mask)}
    loss = Loss(mask=None if mask is None else "mask", **options)
    return loss([{"y": one}], [{"y": two}], [feed])


def test_equal_outputs_lose_nothing():
    y = RANDOM.normal(size=(4, 32))
    assert loss_of(y, y) == pytest.approx(0, abs=1e-12)
    assert loss_of(y, y, logits=("y",)) == pytest.approx(0, abs=1e-12)


def test_cosine_of_wide_rows_does_not_see_their_size():
    y = RANDOM.normal(size=(4, 32))
    assert loss_of(y, 3 * y) == pytest.approx(0, abs=1e-12)
    assert loss_of(y, -y) == pytest.approx(2)


def test_narrow_rows_are_compared_as_a_whole():
    y = RANDOM.normal(size=(500, 2)) + 5
    noise = RANDOM.normal(size=y.shape) / 10
    # correlation 1 / sqrt(1 + 0.01)
    assert loss_of(y, y + noise) == pytest.approx(1 - 1 / np.sqrt(1.01), rel=0.3)


@pytest.mark.parametrize(("rows_", "width"), [(1, 2), (2, 1), (1, 1), (7, 3), (8, 1), (20, 2)])
def test_every_error_of_narrow_rows_is_seen(rows_: int, width: int):
    """However few they are; a shift of one column as well, which flips labels."""
    y = RANDOM.normal(size=(rows_, width)) + 1
    assert loss_of(y, y) == pytest.approx(0, abs=1e-12)
    noise = RANDOM.normal(size=y.shape) / 10
    assert 1e-5 < loss_of(y, y + noise) < loss_of(y, y + 10 * noise)
    shifted = y.copy()
    shifted[:, 0] += 5
    assert loss_of(y, shifted) > 0.1


@pytest.mark.parametrize("rows_", [2, 40])
def test_one_logit_is_no_distribution(rows_: int):
    """A regression's or a reranker's: its softmax is 1 whatever it is, and every error was 0."""
    y = RANDOM.normal(size=(rows_, 1))
    assert loss_of(y, y + 1 + y**2, logits=("y",)) > 0.1
    assert loss_of(y, y, logits=("y",)) == pytest.approx(0, abs=1e-12)
    assert ("few" in Loss(("y",)).unsure([{"y": y}], [{}])) == (rows_ == 2)


def test_a_number_a_token_of_texts_of_unlike_lengths():
    """Where an answer starts, [batch, sequence]: what padding has does not count."""
    masks = [np.array([[1, 1, 1, 1], [1, 1, 0, 0]]), np.ones((2, 9), np.int64)]
    feeds = [{"mask": mask} for mask in masks]
    before = [{"y": RANDOM.normal(size=mask.shape)} for mask in masks]
    noise = [RANDOM.normal(size=mask.shape) for mask in masks]
    outside = [{"y": y["y"] + 9 * (1 - mask)} for y, mask in zip(before, masks, strict=True)]
    near, far = (
        [{"y": y["y"] + by * one} for y, one in zip(before, noise, strict=True)] for by in (0.1, 1)
    )
    loss = Loss(mask="mask")
    assert loss(before, outside, feeds) == pytest.approx(0, abs=1e-12)
    assert 1e-4 < loss(before, near, feeds) < loss(before, far, feeds)
    assert loss.unsure(before, feeds) == ""


def test_few_narrow_rows_are_told():
    wide, narrow = RANDOM.normal(size=(4, 32)), RANDOM.normal(size=(4, 2))
    assert Loss().unsure([{"y": wide}], [{}]) == ""
    assert "few" in Loss().unsure([{"y": wide, "z": narrow}], [{}])
    assert Loss().unsure([{"y": narrow}] * 2, [{}, {}]) == ""
    assert Loss(("y",)).unsure([{"y": narrow}], [{}]) == ""
    padded = Loss(mask="mask").unsure([{"y": np.ones((2, 9, 2))}], [{"mask": np.eye(2, 9)}])
    assert "few" in padded


def test_divergence_by_hand():
    one, two = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert divergence(one, two)[0] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert divergence(one + 7, two - 3)[0] == pytest.approx(divergence(one, two)[0])


def test_divergence_of_a_wide_vocabulary_is_that_of_the_softmaxes():
    one = (RANDOM.normal(size=(AT_ONCE + 3, 50_000)) * 5 + 100).astype("f4")
    two = one + (RANDOM.normal(size=one.shape) / 20).astype("f4")
    p, q = (torch.from_numpy(each).double().log_softmax(1) for each in (one, two))
    wanted = (p.exp() * (p - q)).sum(1).numpy()
    np.testing.assert_allclose(divergence(one, two), wanted, rtol=1e-9, atol=1e-15)


def test_other_outputs_do_not_count_beside_logits():
    y, cache = RANDOM.normal(size=(4, 32)), RANDOM.normal(size=(4, 32))
    before, after = {"y": y, "cache": cache}, {"y": y, "cache": -cache}
    assert Loss(("y",))([before], [after], [{}]) == pytest.approx(0, abs=1e-12)
    assert Loss()([before], [after], [{}]) == pytest.approx(2)


def test_padding_does_not_count():
    y = RANDOM.normal(size=(2, 3, 32))
    other = y.copy()
    other[1, 2] = -y[1, 2]
    assert loss_of(y, other, [[1, 1, 1], [1, 1, 0]]) == pytest.approx(0, abs=1e-12)
    assert loss_of(y, other) == pytest.approx(2 / 6)
    heads = y[:, None].repeat(4, axis=1)
    assert rows(heads, np.array([[1, 1, 1], [1, 1, 0]], bool)).shape == (5 * 4, 32)


def test_the_mask_of_a_cache_ends_with_the_new_tokens():
    y = np.arange(2 * 2 * 16, dtype=float).reshape(2, 2, 16)
    mask = np.array([[1, 1, 1, 1], [0, 1, 1, 0]], bool)
    np.testing.assert_array_equal(rows(y, mask), y[[0, 0, 1], [0, 1, 0]])


def test_rows_of_zeros_have_no_direction():
    assert len(cosines(np.zeros((3, 32)), np.ones((3, 32)))) == 0


def test_integers_and_vectors_are_not_outputs_to_compare():
    outputs = {"ids": np.ones((2, 3), np.int64), "length": np.ones(2)}
    assert Loss()([outputs], [outputs], [{}]) == 0


def test_the_divergence_of_many_rows_is_that_of_each():
    one, two = (RANDOM.normal(size=(2 * AT_ONCE + 3, 5)) for _ in range(2))
    each = [divergence(a[None], b[None])[0] for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(divergence(one, two), each)
    assert divergence(one[:0], two[:0]).shape == (0,)


def test_few_rows_of_a_feed_have_few_tokens():
    ids = np.arange(8 * 64).reshape(8, 64)
    feed = {"ids": ids, "past": np.zeros((8, 2, 0, 4), np.float32)}
    assert {name: len(array) for name, array in few(feed, 256).items()} == {"ids": 4, "past": 4}
    assert len(few(feed, 1)["ids"]) == 1
    odd = {"ids": ids, "table": np.zeros((3, 2))}
    assert few(odd, 1) is odd, "its rows are not samples"
