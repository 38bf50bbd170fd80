"""Feeds with a filled cache: a decoder is really run, greedily, and its own cache given back."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deploy.backend import Feed
from ...deploy.signature import Signature

PAST, PRESENT = "past_", "present_"
Call = Callable[[Feed], Mapping[str, NDArray[Any]]]


def keeps_cache(signature: Signature) -> bool:
    """Whether a graph takes the keys and values of earlier tokens."""
    return any(tensor.role.startswith(PAST) for tensor in signature.inputs)


def steps(call: Call, signature: Signature, first: Feed, count: int) -> Iterator[Feed]:
    """`first`, then `count` feeds of one more token a row, each with the cache of the one before.

    The token is the likeliest after the last place, so a row padded on the right goes on from
    its padding: such feeds compare graphs, they are no calibration data.
    """
    feed = first
    for _ in range(count):
        yield feed
        feed = following(signature, feed, call(feed))
    yield feed


def following(signature: Signature, feed: Feed, outputs: Mapping[str, NDArray[Any]]) -> Feed:
    """The feed of the next token [rows, 1] after a feed and what the graph gave for it."""
    names = {tensor.role: tensor.name for tensor in signature.inputs}
    gave = {tensor.role: outputs[tensor.name] for tensor in signature.outputs}
    token = gave["logits"][:, -1].argmax(axis=-1)[:, None]
    made: dict[str, NDArray[Any]] = dict(feed)
    made[names["input_ids"]] = token.astype(feed[names["input_ids"]].dtype)
    for role, name in names.items():
        if role.startswith(PAST):
            made[name] = gave[PRESENT + role.removeprefix(PAST)]
    if "attention_mask" in names:
        mask = feed[names["attention_mask"]]
        made[names["attention_mask"]] = np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1)
    if "position_ids" in names:
        last = feed[names["position_ids"]][:, -1:]
        made[names["position_ids"]] = np.add(last, 1, dtype=last.dtype)
    return made


def whole(signature: Signature, feeds: list[Feed]) -> Feed:
    """The tokens of consecutive feeds at once, with the empty cache of the first.

    For a decoder beside an encoder, whose rows all start together.
    """
    names = {tensor.role: tensor.name for tensor in signature.inputs}
    ids = np.concatenate([np.asarray(feed[names["input_ids"]]) for feed in feeds], axis=1)
    return {**feeds[0], names["input_ids"]: ids}


def started(decoder: Signature, encoder_feed: Feed, encoded: Feed, start: int) -> Feed:
    """A decoder's first feed: the start token [rows, 1], what it sees of the encoder, no past."""
    rows = len(next(iter(encoder_feed.values())))
    made: dict[str, NDArray[Any]] = {}
    for tensor in decoder.inputs:
        if tensor.role == "input_ids":
            made[tensor.name] = np.full((rows, 1), start, dtype=tensor.dtype)
        elif tensor.role == "encoder_attention_mask":
            made[tensor.name] = np.asarray(encoder_feed["attention_mask"], dtype=tensor.dtype)
        elif tensor.role.startswith(PAST):
            made[tensor.name] = np.zeros(empty(tensor.shape, rows), dtype=tensor.dtype)
        else:
            made[tensor.name] = np.asarray(encoded[tensor.name])
    return made


def empty(shape: tuple[int | str, ...], rows: int) -> tuple[int, ...]:
    """A cache's shape with nothing in it: every name but the batch is 0."""
    return tuple(dim if isinstance(dim, int) else rows if dim == "batch" else 0 for dim in shape)
