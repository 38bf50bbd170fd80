"""Seeded random feeds where no text gives a graph's inputs: to compare, never to calibrate.

Floats are standard normal, as normalised pixels and log-mel features nearly are.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...deploy.backend import Feed
from ...deploy.signature import Signature, Tensor

#: Rows of each feed, and the greatest size of any other dimension that is free.
ROWS = (2, 1)
MOST = 16
#: The size of one of sound: a feature encoder's windows read hundreds of samples at once.
SOUND = {"samples": 4000, "frames": 160}
#: Token ids are below this where the configuration names no vocabulary.
TOKENS = 50


def draw(folder: Path, seed: int, count: int = len(ROWS)) -> tuple[Feed, ...]:
    """Feeds of the graph that a folder's io.json describes; masks are full, caches empty."""
    signature = Signature.load(folder)
    random = np.random.default_rng(seed)
    vocabulary = _vocabulary(folder)
    return tuple(
        {
            tensor.name: _array(tensor, sizes(signature, rows), vocabulary, random)
            for tensor in signature.inputs
        }
        for rows in ROWS[:count]
    )


def sizes(signature: Signature, rows: int) -> dict[str, int]:
    """A size for every named dimension: `rows` for the batch, within the bounds of each."""
    usual = {name: SOUND.get(name, MOST) for name in signature.dims}
    made = {
        name: max(bounds.min, min(bounds.max or usual[name], usual[name]))
        for name, bounds in signature.dims.items()
    }
    return {**made, "batch": rows, "past": 0, "total": made.get("sequence", 1)}


def _array(
    tensor: Tensor, known: dict[str, int], vocabulary: int, random: np.random.Generator
) -> NDArray[np.generic]:
    shape = [dim if isinstance(dim, int) else known.get(dim, 1) for dim in tensor.shape]
    if "mask" in tensor.role:
        return np.ones(shape, dtype=tensor.dtype)
    if tensor.role == "position_ids":
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(tensor.dtype)
    if np.dtype(tensor.dtype).kind == "f":
        return random.standard_normal(shape).astype(tensor.dtype)
    least, limit = (2, vocabulary) if tensor.role.endswith("ids") else (0, 2)
    limit = 1 if tensor.role == "token_type_ids" else limit
    return random.integers(min(least, limit - 1), limit, shape).astype(tensor.dtype)


def _vocabulary(folder: Path) -> int:
    """The least vocabulary that config.json names, at any depth."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return TOKENS
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    found = [part["vocab_size"] for part in parts if isinstance(part.get("vocab_size"), int)]
    return max(3, min(found, default=TOKENS))
