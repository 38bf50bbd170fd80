"""Ready feeds held against what the graph takes, and given what follows from their tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import ConfigError
from ...deploy.backend import Feed
from ...deploy.signature import Signature, Tensor
from .rolling import PAST, empty


def completed(known: Signature, feed: Feed, vocabulary: int | None = None) -> Feed:
    """A feed in the graph's dtypes; one of token ids with the inputs of the graph that it lacks.

    All tokens are real where no mask is given, and of the first text where no types are; positions
    count the real tokens; a cache has nothing in it. What has no such value is left out, for the
    graph to ask for.

    Raises:
        ConfigError: an array that is no input, of other dimensions, of another kind of number than
            its input or with one that its dtype cannot hold, a mask of another shape than the ids,
            ids that are not of the `vocabulary`, or a sample without a real token.
    """
    inputs = [tensor.name for tensor in known.inputs]
    unknown = [name for name in feed if name not in inputs]
    if unknown:
        raise _wrong(f"{unknown[0]} is no input: they are {', '.join(inputs)}")
    given = {tensor.name: tensor for tensor in known.inputs if tensor.name in feed}
    held = {**feed, **{name: _fitting(each, feed[name]) for name, each in given.items()}}
    names = {tensor.role: tensor.name for tensor in known.inputs}
    if names.get("input_ids") not in held:
        return held
    ids = held[names["input_ids"]]
    if ids.size and not 0 <= ids.min() <= ids.max() < (vocabulary or np.inf):
        many = "" if vocabulary is None else f" of {vocabulary} tokens"
        raise _wrong(f"{names['input_ids']} has ids {ids.min()} to {ids.max()}{many}")
    mask = held.get(names.get("attention_mask", ""), np.ones_like(ids))
    if not any(each.role.startswith(PAST) for each in given.values()):
        _check(ids, mask)
    lacking = (tensor for tensor in known.inputs if tensor.name not in held)
    found = {tensor.name: _following(tensor, ids, mask) for tensor in lacking}
    return {**held, **{name: array for name, array in found.items() if array is not None}}


def vocabulary_of(folder: Path) -> int | None:
    """The greatest vocabulary that an export's config.json names, None where it names none."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        parts = [config, *(part for part in config.values() if isinstance(part, dict))]
        return max(part["vocab_size"] for part in parts if isinstance(part.get("vocab_size"), int))
    except (OSError, ValueError, AttributeError):
        return None


def _fitting(tensor: Tensor, array: NDArray[Any]) -> NDArray[Any]:
    wanted, kinds = np.dtype(tensor.dtype), ("f", "biu")
    if array.ndim != len(tensor.shape):
        raise _wrong(f"{tensor.name} has {array.ndim} dimensions, its input {len(tensor.shape)}")
    if not any(array.dtype.kind in kind and wanted.kind in kind for kind in kinds):
        raise _wrong(f"{tensor.name} is {array.dtype}, its input {wanted}")
    with np.errstate(over="ignore"):
        cast = array.astype(wanted, copy=False)
    same = np.isfinite(cast) == np.isfinite(array) if wanted.kind == "f" else cast == array
    if not same.all():
        raise _wrong(f"{tensor.name} holds {array[~same][0]}, which is no {wanted}")
    return cast


def _check(ids: NDArray[Any], mask: NDArray[Any]) -> None:
    if mask.shape != ids.shape:
        raise _wrong(f"the mask is {mask.shape} of ids {ids.shape}")
    bare = np.flatnonzero(~mask.reshape(len(ids), int(np.prod(ids.shape[1:]))).any(axis=1))
    if len(bare):
        raise _wrong(f"{len(bare)} of {len(ids)} samples of a batch have no real token")


def _wrong(what: str) -> ConfigError:
    mend = "save a sample a row of each input: `llmdeploy inspect` of the export shows them"
    return ConfigError(what, where="[calibration] samples", mend=mend)


def _following(tensor: Tensor, ids: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any] | None:
    if tensor.role.startswith(PAST):
        return np.zeros(empty(tensor.shape, len(ids)), tensor.dtype)
    given = {
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
        "position_ids": (mask.astype(np.int64).cumsum(axis=-1) - 1).clip(0),
    }.get(tensor.role)
    return None if given is None else given.astype(tensor.dtype)
