"""Arrays that lie on disk come back as they were."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from llmdeploy.toolchain.spilled import Spilled
from numpy.typing import NDArray

ODD: dict[str, NDArray[Any]] = {
    "": np.array(3.0),
    "a/b": np.zeros((2, 0, 3)),
    "turned": np.arange(6).reshape(2, 3).T,
    "short": np.ones(3, ml_dtypes.bfloat16),
    "bits": np.array([True, False]),
}


def test_arrays_of_any_kind_come_back_as_they_were(tmp_path: Path):
    (found,) = Spilled(tmp_path / "kept", [ODD])
    assert list(found) == list(ODD)
    for name, array in ODD.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_it_is_a_sequence_that_may_be_filled_in_any_order(tmp_path: Path):
    kept = Spilled(tmp_path / "kept")
    for index, name in ((1, "x"), (0, "x"), (1, "y")):
        kept.put(index, {name: np.array([index])})
    assert [list(each) for each in kept] == [["x"], ["x", "y"]]
    assert [each["x"].item() for each in kept[:]] == [0, 1]
    assert kept[-1]["x"] == 1
    assert list(kept.take(1)) == ["x", "y"]
    assert len(list((tmp_path / "kept").iterdir())) == 1
