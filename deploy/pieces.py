"""Samples cut into pieces that are small as float64, and what was measured of them joined again.

One sample's logits over a large vocabulary are hundreds of megabytes; comparing takes several
arrays of their size in float64.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray[Any]]
Floats = dict[str, NDArray[np.float64]]
#: Elements of an output that are compared at once.
SIZE = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Of a piece of one output: its sample, its elements, the sum of squares on either side."""

    sample: int
    elements: int
    reference: float
    candidate: float


@dataclass(frozen=True)
class Figures:
    """Largest and mean absolute error, cosine and ratio of signal to noise in dB."""

    max_abs: float
    mean_abs: float
    cosine: float
    snr: float


@dataclass
class Pieces:
    """Cuts samples, and keeps what joining takes: the pieces given, each output's magnitude."""

    given: list[dict[str, Piece]] = field(default_factory=list[dict[str, Piece]])
    scale: dict[str, float] = field(default_factory=dict[str, float])
    samples: int = 0

    def cut(self, samples: Iterable[tuple[Outputs, Outputs]]) -> Iterator[tuple[Floats, Floats]]:
        """Pieces of both sides, of all outputs side by side; an output has none without elements.

        As float64: Polygraphy's arithmetic lacks bool and overflows integers.
        """
        for before, after in samples:
            self.scale = dict.fromkeys(before, 0.0) | self.scale
            longest = max((array.size for array in before.values()), default=0)
            for start in range(0, longest, SIZE):
                one, two = _piece(before, start), _piece(after, start)
                self.given.append(
                    {name: _noted(self.samples, one[name], two[name]) for name in one}
                )
                for name, array in one.items():
                    self.scale[name] = max(self.scale[name], float(np.abs(array).max()))
                yield one, two
            del before, after  # before the next are made: they may be views of all of a feed
            self.samples += 1


def _piece(outputs: Outputs, start: int) -> Floats:
    return {
        name: array.reshape(-1)[start : start + SIZE].astype(np.float64)
        for name, array in outputs.items()
        if start < array.size
    }


def _noted(sample: int, one: NDArray[np.float64], two: NDArray[np.float64]) -> Piece:
    return Piece(sample, one.size, float(one @ one), float(two @ two))


def joined(parts: Sequence[tuple[Piece, Figures]]) -> Figures:
    """The figures of a sample's output by those of its pieces; equal but for float64's rounding."""
    if len(parts) == 1:
        return parts[0][1]
    elements = sum(piece.elements for piece, _ in parts)
    signal = sum(piece.reference for piece, _ in parts)
    other = sum(piece.candidate for piece, _ in parts)
    noise = sum(_noise(piece, each.snr) for piece, each in parts)
    shared = sum(each.cosine * sqrt(p.reference) * sqrt(p.candidate) for p, each in parts)
    norms = sqrt(signal) * sqrt(other)
    return Figures(
        max_abs=max(each.max_abs for _, each in parts),
        mean_abs=sum(each.mean_abs * piece.elements for piece, each in parts) / elements,
        cosine=max(-1.0, min(1.0, shared / norms)) if norms else float(signal == other),
        snr=_ratio(signal, noise),
    )


def _noise(piece: Piece, snr: float) -> float:
    """The sum of squared errors; where the reference is all zeros, the candidate is the error."""
    if snr == -inf:
        return piece.candidate
    return 0.0 if snr == inf else piece.reference / 10 ** (snr / 10)


def _ratio(signal: float, noise: float) -> float:
    if not noise:
        return inf
    return 10 * log10(signal / noise) if signal else -inf
