from dataclasses import asdict

import numpy as np
import pytest
from llmdeploy import ParityError
from llmdeploy.deploy import agreement
from llmdeploy.deploy.agreement import joined, logits, prefix

from .graphs import normal


def test_equal_logits_agree_in_all() -> None:
    found = joined(logits(normal(2, 3, 7), normal(2, 3, 7)))
    assert (found.places, found.classes, found.argmax, found.top_k) == (6, 7, 1.0, 1.0)
    assert (found.kl_mean, found.kl_max) == (0.0, 0.0)


def test_figures_of_two_classes_by_hand() -> None:
    # Probabilities (0.5, 0.5) against (0.8, 0.2): KL = 0.5 ln(0.5 / 0.8) + 0.5 ln(0.5 / 0.2).
    before = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    after = np.log(np.array([[0.8, 0.2], [0.1, 0.9]]))
    found = joined(logits(before, after, k=1))
    second = 0.9 * np.log(9) + 0.1 * np.log(1 / 9)
    assert found.kl_max == pytest.approx(second)
    assert found.kl_mean == pytest.approx(
        (0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(2.5) + second) / 2
    )
    assert found.argmax == 0.5


def test_overlap_of_the_greatest() -> None:
    before = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    after = np.array([[5.0, 1.0, 4.5, 2.0, 3.0]])
    assert joined(logits(before, after, k=3)).top_k == pytest.approx(2 / 3)
    assert joined(logits(before, after, k=99)).k == 5


def test_some_rows_at_a_time_are_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = normal(50, 7), normal(50, 7, seed=1)
    (whole,) = logits(before, after)
    monkeypatch.setattr(agreement, "AT_ONCE", 7 * 8)
    parts = logits(before, after)
    assert [part.places for part in parts] == [8] * 6 + [2]
    assert asdict(joined(parts)) == pytest.approx(asdict(whole), rel=1e-12)


def test_the_share_of_a_generation_that_is_the_same() -> None:
    one = [np.array([1, 2, 3, 4]), np.array([5, 6])]
    assert prefix(one, one) == 1.0
    assert prefix(one, [np.array([1, 2, 9, 4]), np.array([5, 6, 7])]) == pytest.approx(
        (0.5 + 2 / 3) / 2
    )
    assert prefix([np.array([])], [np.array([])]) == 1.0


@pytest.mark.parametrize(
    ("before", "after"),
    [(normal(2, 3), normal(2, 4)), (np.full((1, 2), np.nan), normal(1, 2))],
)
def test_what_cannot_be_compared_is_said(before: np.ndarray, after: np.ndarray) -> None:
    with pytest.raises(ParityError):
        logits(before, after)


def test_of_nothing_there_is_no_agreement() -> None:
    with pytest.raises(ParityError, match="no logits"):
        joined(logits(normal(0, 3), normal(0, 3)))
    with pytest.raises(ParityError):
        prefix([], [])
