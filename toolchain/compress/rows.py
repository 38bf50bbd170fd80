"""Rows of real tokens out of an activation."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .stretch import Array


def rows(array: Array, feed: Mapping[str, Array], mask: str | None) -> NDArray[np.float32]:
    """[..., k] as rows [r, k], those of padding left out where the array has a row a token."""
    if mask is not None and mask in feed and array.ndim == 3:
        real = np.asarray(feed[mask]).astype(bool)[..., -array.shape[1] :]
        if real.shape == array.shape[:2]:
            array = array[real]
    return array.reshape(-1, array.shape[-1])
