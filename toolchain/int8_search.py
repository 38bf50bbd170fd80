"""Which layers stay in float: as few multiply-adds as hold the budget, by measured sensitivity."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..calibration import Calibrated, Feed
from ..passes import PassManager, Step, load, save
from ..passes.quantize import Quantize
from .int8_layers import Rounded, smooth_pass
from .replay import Probe, replay

Outputs = Sequence[Mapping[str, NDArray[np.generic]]]
#: Held-out batches that decide, at most.
BATCHES = 16
NARROW = 16


@dataclass(frozen=True)
class Result:
    """What was written: the layers left in float, the drop that remains, each site's own drop.

    `drop` is 1 - the mean cosine of the outputs with float's; None where nothing was measured.
    """

    kept: frozenset[str]
    drop: float | None
    sensitivity: Mapping[str, float]
    steps: tuple[Step, ...]


class Search:
    """Builds Q/DQ graphs with some layers kept in float, and measures them against float."""

    def __init__(
        self,
        model: Path,
        calibrated: Calibrated,
        rounded: Mapping[str, Rounded],
        feeds: Sequence[Feed],
        mask: str | None,
        folder: Path,
    ) -> None:
        self.model, self.calibrated, self.rounded = model, calibrated, rounded
        self.feeds, self.mask, self.folder = list(feeds)[:BATCHES], mask, folder
        self._float = replay(model, self.feeds) if self.feeds else []

    def run(self, keep: frozenset[str], max_drop: float) -> Result:
        """Write model.onnx with as few layers in float as hold `max_drop`, beside `keep`."""
        steps = self.write(self.folder, keep)
        if not self.feeds:
            return Result(keep, None, {}, steps)
        drop = self.drop(self.folder)
        if drop <= max_drop:
            return Result(keep, drop, {}, steps)
        alone = self.sensitivity(keep)
        kept = keep
        for group in self._ranked(alone):
            kept |= group
            with tempfile.TemporaryDirectory(dir=self.folder) as aside:
                self.write(Path(aside), kept)
                drop = self.drop(Path(aside))
            if drop <= max_drop:
                break
        steps = self.write(self.folder, kept)
        return Result(kept, self.drop(self.folder), alone, steps)

    def write(self, folder: Path, keep: frozenset[str]) -> tuple[Step, ...]:
        """The Q/DQ graph with the layers in `keep` left in float."""
        layers = {n: r.int8 for n, r in self.rounded.items() if n not in keep}
        graph, smooth = PassManager(
            [smooth_pass(self.calibrated)], verify=Probe(self.feeds[:1]) if self.feeds else None
        ).run(load(self.model))
        graph, quantize = PassManager([Quantize(layers=layers)]).run(graph)
        save(graph, folder)
        return (*smooth, *quantize)

    def drop(self, folder: Path) -> float:
        """1 - the mean cosine with float's outputs, of the output that lost most."""
        return lost(self._float, replay(folder / "model.onnx", self.feeds), self._real())

    def sensitivity(self, keep: frozenset[str]) -> dict[str, float]:
        """The drop that each activation's layers cause alone."""
        everything = frozenset(self.rounded)
        found: dict[str, float] = {}
        for name, each in self.calibrated.ranges.items():
            layers = frozenset(each.layers) - keep
            if not layers:
                continue
            with tempfile.TemporaryDirectory(dir=self.folder) as aside:
                self.write(Path(aside), everything - layers)
                found[name] = self.drop(Path(aside))
        return found

    def _ranked(self, alone: Mapping[str, float]) -> list[frozenset[str]]:
        """Groups of layers, those first that gain most for a multiply-add left in float."""
        groups = {name: frozenset(self.calibrated.ranges[name].layers) for name in alone}
        size = {
            name: sum(self.rounded[n].layer.k * self.rounded[n].layer.n for n in group)
            for name, group in groups.items()
        }
        order = sorted(alone, key=lambda name: -alone[name] / size[name])
        return [groups[name] for name in order]

    def _real(self) -> list[NDArray[np.bool_] | None]:
        if self.mask is None:
            return [None] * len(self.feeds)
        return [np.asarray(feed[self.mask]).astype(bool) for feed in self.feeds]


def lost(before: Outputs, after: Outputs, real: Sequence[NDArray[np.bool_] | None]) -> float:
    """1 - the mean cosine of float rows, the worst output's; padding left out.

    Rows narrower than `NARROW`, a classifier's scores, have no direction to speak of: there all
    rows, their mean taken off, are one.
    """
    worst = 0.0
    for name, array in before[0].items():
        if array.dtype.kind != "f" or array.ndim < 2:
            continue
        one, two = (
            np.concatenate(
                [_rows(each[name], mask) for each, mask in zip(found, real, strict=True)]
            )
            for found in (before, after)
        )
        rows = _cosines(one, two)
        worst = max(worst, 1 - float(rows.mean())) if len(rows) else worst
    return worst


def _cosines(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    if one.shape[1] < NARROW:
        one, two = ((each - each.mean(axis=0)).reshape(1, -1) for each in (one, two))
    real = np.linalg.norm(one, axis=1) > 0  # the empty places of a cache have no direction
    one, two = one[real], two[real]
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return (one * two).sum(axis=1) / np.maximum(sizes, 1e-30)


def _rows(array: NDArray[np.generic], mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    kept = _tokens(array, mask)
    return kept.reshape(-1, kept.shape[-1]).astype(np.float64)


def _tokens(array: NDArray[np.generic], mask: NDArray[np.bool_] | None) -> NDArray[np.generic]:
    """The rows of real tokens of [batch, sequence, k] or [batch, heads, sequence, k]; else all."""
    if mask is None or array.ndim not in (3, 4):
        return array
    array = array if array.ndim == 3 else array.swapaxes(1, 2)
    width = array.shape[1]
    fits = mask.ndim == 2 and array.shape[0] == len(mask) and 0 < width <= mask.shape[1]
    return array[mask[:, -width:]] if fits else array
