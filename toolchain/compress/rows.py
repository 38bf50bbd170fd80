"""Rows of real tokens out of an activation."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .stretch import Array


def rows(array: Array, feed: Mapping[str, Array], mask: str | None) -> NDArray[np.float32]:
    """[..., k] as rows [r, k], those of padding left out where the array has a row a token.

    A Gemm's rows are all tokens of all texts, one after the other; a row a text is no token.
    """
    flat = array.reshape(-1, array.shape[-1])
    if mask is None or mask not in feed:
        return flat
    real = np.asarray(feed[mask]).astype(bool)
    if real.ndim == 2 and (array.ndim == 3 or (array.ndim == 2 and len(flat) > len(real))):
        now = real[:, -(len(flat) // len(real)) :]  # of a cache's tokens there is no row
        if array.shape[:-1] in (now.shape, (now.size,)):
            return flat[now.reshape(-1)]
    return flat
