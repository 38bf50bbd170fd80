"""Ready feeds that hold the tokens and leave out what follows from them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deploy.backend import Feed
from ...deploy.signature import Signature, Tensor
from .rolling import PAST, empty


def completed(known: Signature, feed: Feed) -> Feed:
    """A feed of token ids [rows, tokens] with the inputs of the graph that it lacks.

    All tokens are real where no mask is given, and of the first text where no types are; positions
    count the real tokens; a cache has nothing in it. What has no such value is left out, for the
    graph to ask for; a feed without ids is as it was.
    """
    names = {tensor.role: tensor.name for tensor in known.inputs}
    ids = feed.get(names.get("input_ids", ""))
    if ids is None or np.ndim(ids) < 2:
        return feed
    mask = feed.get(names.get("attention_mask", ""), np.ones_like(ids))
    lacking = (tensor for tensor in known.inputs if tensor.name not in feed)
    found = {tensor.name: _given(tensor, np.asarray(ids), np.asarray(mask)) for tensor in lacking}
    return {**feed, **{name: array for name, array in found.items() if array is not None}}


def _given(tensor: Tensor, ids: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any] | None:
    if tensor.role.startswith(PAST):
        return np.zeros(empty(tensor.shape, len(ids)), tensor.dtype)
    given = {
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
        "position_ids": (mask.astype(np.int64).cumsum(axis=-1) - 1).clip(0),
    }.get(tensor.role)
    return None if given is None else given.astype(tensor.dtype)
