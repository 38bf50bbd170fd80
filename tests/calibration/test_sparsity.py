"""Two of four stay in every four, and what makes up for the others errs least."""

import numpy as np
import pytest
from llmdeploy.calibration.sparsity import Method, Pattern, kept, sparse

RANDOM = np.random.default_rng(0)
SCALES = RANDOM.permutation(np.geomspace(1, 0.05, 160))
MIXED = RANDOM.normal(size=(3000, 40)) @ RANDOM.normal(size=(40, 160)) / 6
X = (MIXED + 0.3 * RANDOM.normal(size=(3000, 160))) * SCALES
W = RANDOM.normal(size=(160, 24)) * RANDOM.uniform(0.2, 3, size=(160, 1))
GRAM = X.T @ X / len(X)


def error(pattern: Pattern, method: Method) -> float:
    made = sparse(GRAM, W, len(X), pattern, 0.5, method)
    assert (made != 0).mean() == pytest.approx(0.5, abs=0.01)
    return float(np.square(X @ (W - made)).mean())


@pytest.mark.parametrize("pattern", ["2:4", "unstructured"])
def test_making_up_errs_least_and_magnitude_most(pattern: Pattern) -> None:
    made_up, wanda, magnitude = (error(pattern, m) for m in ("sparsegpt", "wanda", "magnitude"))
    assert made_up < 0.6 * wanda
    assert wanda < magnitude


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
def test_no_four_inputs_have_more_than_two(method: Method) -> None:
    made = sparse(GRAM, W, len(X), "2:4", 0.5, method)
    assert ((made.reshape(-1, 4, 24) != 0).sum(axis=1) <= 2).all()


def test_equal_weights_are_still_two_of_four() -> None:
    assert (kept(np.ones((8, 3)), "2:4", 0.5).reshape(2, 4, 3).sum(axis=1) == 2).all()


def test_inputs_that_are_no_fours() -> None:
    with pytest.raises(ValueError, match="multiple of four"):
        sparse(np.eye(6), np.ones((6, 2)), 10)
