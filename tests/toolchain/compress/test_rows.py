import numpy as np
import pytest
from llmdeploy.toolchain.compress.rows import rows

MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
REAL = [0, 1, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((2, 4, 3), REAL),
        ((8, 3), REAL),
        ((2, 2, 3), [2, 3]),
        ((4, 3), [2, 3]),
        ((2, 3), [0, 1]),
        ((7, 3), range(7)),
        ((2, 5, 4, 3), range(40)),
    ],
    ids=["tokens", "flat", "after a cache", "flat after a cache", "texts", "others", "heads"],
)
def test_padding_is_left_out_where_a_row_is_a_token(
    shape: tuple[int, ...], kept: list[int]
) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = rows(array, {"mask": MASK}, "mask")
    np.testing.assert_array_equal(found, array.reshape(-1, shape[-1])[list(kept)])
    assert rows(array, {}, "mask").shape == rows(array, {"mask": MASK}, None).shape


def test_others_are_left_whole() -> None:
    assert len(rows(np.zeros((8, 3)), {"mask": np.ones((2, 1, 1, 4))}, "mask")) == 8
