import numpy as np
from llmdeploy.calibration.rounding import Compensation


def test_moments_that_rounding_drowned_round_each_column_alone() -> None:
    random = np.random.default_rng(0)
    drowned = random.standard_normal((8, 8)) * 1e-6
    drowned += drowned.T
    np.fill_diagonal(drowned, 1e-6)
    assert np.linalg.eigvalsh(drowned)[0] < -1e-6
    factor = Compensation.of(drowned).factor
    assert np.isfinite(factor).all()
    assert np.array_equal(factor, np.diag(factor.diagonal()))
