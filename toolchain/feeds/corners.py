"""The corners of what a graph takes: rows and tokens, one and the most; both paddings."""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from ...deploy.backend import Feed, Profile
from ...deploy.signature import Signature
from .encoding import Texts

#: More tokens than this are not compared: torch computes the same on a CPU.
LONGEST = 512
#: Words that give a token each, or more: a tokenizer may drop some.
_SPARE = 4


def corners(
    encode: Texts, signature: Signature, texts: Sequence[str], max_length: int, profile: Profile
) -> tuple[Feed, ...]:
    """Texts as one padded batch, alone, one word, as many tokens and as many rows as are taken;
    a single token; and the batch with its padding on the other side.
    """
    words = " ".join(texts).split()
    rows = profile.dims.get("batch", (1, 1, 1))[2]
    _, _, most = profile.dims.get("sequence") or profile.dims.get("source") or (1, 1, max_length)
    longest = min(most, LONGEST)
    many = islice(cycle(words), _SPARE * longest)
    batch = encode(list(texts), max_length)
    given = (
        batch,
        encode(texts[:1], max_length),
        encode(words[:1], max_length),
        encode([" ".join(many)], longest),
        encode([words[index % len(words)] for index in range(rows)], max_length),
    )
    ids = signature.input("input_ids")
    if ids is None or not all(isinstance(dim, str) for dim in ids.shape):
        return given[:1] if ids is None else given
    moved = turned(signature, batch)
    bounds = signature.dims.get(str(ids.shape[-1]))
    one = (cut(signature, given[1]),) if bounds is None or bounds.min == 1 else ()
    return (*given, *one, *((moved,) if moved else ()))


def cut(signature: Signature, feed: Feed) -> Feed:
    """The first token alone of every input that has tokens."""
    return {
        name: array[:, :1] if _tokens(signature, feed, array) else array
        for name, array in feed.items()
    }


def turned(signature: Signature, feed: Feed) -> Feed | None:
    """The padding moved to the other side, None where the graph is told of none."""
    mask = signature.input("attention_mask")
    if mask is None:
        return None
    real = np.asarray(feed[mask.name]).astype(bool)
    missing = real.shape[1] - real.sum(axis=1)
    shifts = missing if signature.padding_side == "right" else -missing
    return {
        name: _rolled(array, shifts) if _tokens(signature, feed, array) else array
        for name, array in feed.items()
    }


def _tokens(signature: Signature, feed: Feed, array: NDArray[np.generic]) -> bool:
    ids = signature.input("input_ids")
    return ids is not None and array.ndim == 2 and array.shape == feed[ids.name].shape


def _rolled(array: NDArray[np.generic], shifts: NDArray[np.int64]) -> NDArray[np.generic]:
    rows = [np.roll(row, int(shift)) for row, shift in zip(array, shifts, strict=True)]
    return np.stack(rows)
