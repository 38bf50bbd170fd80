"""Single tokens with a filled cache from a model larger than memory, a block of it at a time."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration import forward_blocks, is_large
from ...deploy.backend import Feed
from ...deploy.signature import Signature
from ..referenced import weights_of
from .rolling import PRESENT, following

__all__ = ["continued", "is_large"]


def continued(path: Path, signature: Signature, feeds: Sequence[Feed]) -> tuple[Feed, ...]:
    """The feed of the next token after each feed, with the cache that the feed left.

    All feeds are run once, so that each block of weights is read once.
    """
    names = {each.role: each.name for each in signature.outputs}
    logits = names["logits"]
    wanted = [logits, *(name for role, name in names.items() if role.startswith(PRESENT))]
    found: list[dict[str, NDArray[Any]]] = [{} for _ in feeds]
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside:
        blocks = forward_blocks(path, wanted, feeds, Path(aside), weights=weights_of(path.parent))
        for _, runs in blocks:
            for outputs, arrays in zip(found, runs, strict=True):
                # copies: an array of the runtime's keeps all memory of its session
                outputs |= {n: np.array(a[:, -1:] if n == logits else a) for n, a in arrays.items()}
    return tuple(
        following(signature, feed, outputs) for feed, outputs in zip(feeds, found, strict=True)
    )
