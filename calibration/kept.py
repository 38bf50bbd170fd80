"""What int8 must cover of keys and values that a decoder keeps, channel by channel, as they come.

Channels of keys differ by orders of magnitude and stay so from token to token (KIVI, arXiv
2402.02750), so that each channel of each head has a step of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Mask = NDArray[np.bool_]
#: The largest level; -128 is left alone, as symmetric quantisation does.
TOP = 127
#: A channel's step is no less than this share of the greatest one: what samples never reach may.
LEAST = 1e-3


@dataclass
class Reach:
    """The largest magnitudes [heads, width] of the tokens that were added."""

    most: NDArray[np.float32] | None = None

    def add(self, array: Array, real: Mask | None, new: int) -> None:
        """Take the `new` last tokens of [batch, heads, tokens, width] that are `real`."""
        tokens = _tokens(array, real, new)
        if len(tokens):
            most = np.abs(tokens).max(axis=0)
            self.most = most if self.most is None else np.maximum(self.most, most)

    def steps(self) -> NDArray[np.float32]:
        """A step a channel; none is 0."""
        assert self.most is not None
        least = LEAST * float(self.most.max()) or 1.0
        return (np.maximum(self.most, least) / TOP).astype(np.float32)


@dataclass
class Rounding:
    """What rounding by `steps` costs on tokens that did not choose them."""

    steps: NDArray[np.float32]
    signal: float = 0.0
    noise: float = 0.0
    cut: int = 0
    count: int = 0

    def add(self, array: Array, real: Mask | None, new: int) -> None:
        """As `Reach.add`."""
        tokens = _tokens(array, real, new)
        levels = tokens / self.steps
        kept = np.clip(np.rint(levels), -TOP - 1, TOP) * self.steps
        self.signal += float(np.square(tokens, dtype=np.float64).sum())
        self.noise += float(np.square(kept - tokens, dtype=np.float64).sum())
        self.cut += int((np.abs(levels) > TOP + 0.5).sum())
        self.count += levels.size

    @property
    def error(self) -> float:
        """Noise over signal."""
        return self.noise / self.signal if self.signal else 0.0

    @property
    def saturated(self) -> float:
        """The share of elements that lie beyond the last level."""
        return self.cut / self.count if self.count else 0.0


def _tokens(array: Array, real: Mask | None, new: int) -> NDArray[np.float32]:
    """The real ones of the last tokens as rows [tokens, heads, width]."""
    last = np.moveaxis(array, 1, 2)[:, -new:].astype(np.float32)
    return last[real] if real is not None else last.reshape(-1, *last.shape[2:])


def spread(length: Sequence[int], room: int) -> list[int]:
    """How far to move the positions of each feed: evenly over what the graph takes, half stay.

    Rotary embeddings turn the channels of keys, some of them once in thousands of tokens: what
    short samples show of them is not what long texts keep.
    """
    moved: list[int] = []
    count = max(1, len(length) // 2)
    for at, tokens in enumerate(length):
        share = (at // 2 + 1) / count
        moved.append(int(share * max(0, room - tokens)) if at % 2 else 0)
    return moved
