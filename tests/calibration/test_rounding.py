import numpy as np
from llmdeploy.calibration.rounding import Compensation, compensated, nearest, steps_of


def test_moments_that_rounding_drowned_round_each_column_alone() -> None:
    random = np.random.default_rng(0)
    drowned = random.standard_normal((8, 8)) * 1e-6
    drowned += drowned.T
    np.fill_diagonal(drowned, 1e-6)
    assert np.linalg.eigvalsh(drowned)[0] < -1e-6
    factor = Compensation.of(drowned).factor
    assert np.isfinite(factor).all()
    assert np.array_equal(factor, np.diag(factor.diagonal()))


def test_zeros_of_a_sparse_weight_stay() -> None:
    """What is not zero makes up for the rounding all the same."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 32)) @ random.normal(size=(32, 32))
    weight = random.normal(size=(32, 24)).astype(np.float32)
    ranks = np.argsort(np.argsort(abs(weight.reshape(-1, 4, 24)), axis=1), axis=1)
    weight[(ranks < 2).reshape(weight.shape)] = 0.0
    steps = steps_of(weight) * np.float32(8)
    made = compensated(weight, steps, Compensation.of(x.T @ x))
    assert not made[weight == 0].any()
    wrong = (
        np.square(x @ (weight - each * steps)).sum() for each in (made, nearest(weight, steps))
    )
    assert next(wrong) < 0.9 * next(wrong)
