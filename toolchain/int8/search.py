"""Which layers stay in float: as few multiply-adds as hold the budget, by measured sensitivity."""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...calibration import Calibrated, Feed
from ...passes import PassManager, Step, load, save
from ...passes.quantize import Quantize
from ...passes.switch import PREFIX, Switch
from ..replay import Outputs, Probe, opened
from .layers import Rounded, float_passes, smoothed
from .loss import Loss

#: Held-out batches that decide, at most, and as far as this many bytes of outputs go.
BATCHES, BYTES = 16, 256 << 20
#: Of these, as many decide in which order layers go back to float, by so many tokens of each.
RANKING, TOKENS = 4, 256
#: Groups of layers are left in float until this much of the budget is used, as far as drops add.
SLACK = 0.95


@dataclass(frozen=True)
class Result:
    """What was written: the layers left in float, the drop that remains, each site's own drop.

    `drop` is `Loss`'s; None where nothing was measured.
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
        loss: Loss,
        feeds: Sequence[Feed],
    ) -> None:
        self.model, self.calibrated, self.rounded, self.loss = model, calibrated, rounded, loss
        self.wanted = _wanted(model, loss, feeds[:BATCHES]) if feeds else []
        self.feeds = list(feeds[: len(self.wanted)])

    def run(self, folder: Path, keep: frozenset[str], max_drop: float) -> Result:
        """Write model.onnx with as few layers in float as hold `max_drop`, beside `keep`."""
        steps = self.write(folder, keep)
        if not self.feeds:
            return Result(keep, None, {}, steps)
        drop = self.measured(opened(folder / "model.onnx"))
        if drop <= max_drop:
            return Result(keep, drop, {}, steps)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as aside:
            trial = Trial(self, Path(aside))
            alone = trial.alone(keep)
            kept = trial.hold(keep, self.ranked(alone), max_drop)
        steps = self.write(folder, kept)
        return Result(kept, self.measured(opened(folder / "model.onnx")), alone, steps)

    def measured(self, run: Callable[[Feed], Outputs]) -> float:
        """The loss of a model's outputs on the held-out feeds."""
        return self.loss(
            self.wanted, [self.loss.kept(run(feed)) for feed in self.feeds], self.feeds
        )

    def write(self, folder: Path, keep: Collection[str]) -> tuple[Step, ...]:
        """The Q/DQ graph with the layers in `keep` left in float."""
        layers = {n: r.int8 for n, r in self.rounded.items() if n not in keep}
        graph, smooth = PassManager(
            float_passes(self.calibrated, keep),
            verify=Probe([few(self.feeds[0], TOKENS)]) if self.feeds else None,
        ).run(load(self.model))
        graph, quantize = PassManager([Quantize(layers=layers)]).run(graph)
        save(graph, folder)
        return (*smooth, *quantize)

    def ranked(self, alone: Mapping[str, float]) -> list[frozenset[str]]:
        """Groups of layers, those first that gain most for a multiply-add left in float."""
        groups = {name: frozenset(self.calibrated.ranges[name].layers) for name in alone}
        size = {
            name: sum(self.rounded[n].layer.k * self.rounded[n].layer.n for n in group)
            for name, group in groups.items()
        }
        order = sorted(alone, key=lambda name: -alone[name] / size[name])
        return [groups[name] for name in order]


class Trial:
    """One model whose layers are switched between INT8 and float, opened once."""

    def __init__(self, search: Search, folder: Path) -> None:
        self._search = search
        layers = {name: each.int8 for name, each in search.rounded.items()}
        model = smoothed(search.model, search.calibrated)
        save(Switch(layers=layers)(model).model, folder)
        self._run = opened(folder / "model.onnx")
        self._few = [few(feed, TOKENS) for feed in search.feeds[:RANKING]]
        self._wanted = [self._outputs(feed, frozenset(layers)) for feed in self._few]

    def _outputs(self, feed: Feed, kept: Collection[str]) -> Outputs:
        """What counts of the outputs, with these layers in float and all others in INT8."""
        switches = {f"{PREFIX}{name}": np.array(name not in kept) for name in self._search.rounded}
        return self._search.loss.kept(self._run({**feed, **switches}))

    def drop(self, kept: Collection[str]) -> float:
        """The drop with these layers in float and all others in INT8."""
        return self._search.measured(lambda feed: self._outputs(feed, kept))

    def alone(self, keep: frozenset[str]) -> dict[str, float]:
        """The drop that each activation's layers cause alone, on few tokens: it only ranks them."""
        everything, found = frozenset(self._search.rounded), dict[str, float]()
        for name, each in self._search.calibrated.ranges.items():
            layers = frozenset(each.layers) - keep
            if layers:
                outputs = [self._outputs(feed, everything - layers) for feed in self._few]
                found[name] = self._search.loss(self._wanted, outputs, self._few)
        return found

    def hold(
        self, keep: frozenset[str], groups: Sequence[frozenset[str]], max_drop: float
    ) -> frozenset[str]:
        """The fewest first groups that hold the budget, by bisection; drops fall as they grow."""
        low, high = 0, len(groups)
        while high - low > 1:
            middle = (low + high) // 2
            if self.drop(keep.union(*groups[:middle])) <= max_drop * SLACK:
                high = middle
            else:
                low = middle
        return keep.union(*groups[:high])


def few(feed: Feed, tokens: int) -> Feed:
    """As many first rows of a feed as have that many tokens, one at the least."""
    rows = {len(array) for array in feed.values() if array.ndim}
    ids = [
        array.shape[1] for array in feed.values() if array.ndim == 2 and array.dtype.kind in "iu"
    ]
    if len(rows) != 1 or not ids:
        return feed
    count = max(1, tokens // max(ids))
    return {name: array[:count] for name, array in feed.items()}


def _wanted(model: Path, loss: Loss, feeds: Sequence[Feed]) -> list[Outputs]:
    """The float model's outputs, of as many feeds as `BYTES` of them allow, of one at least."""
    run, found, size = opened(model), list[Outputs](), 0
    for feed in feeds:
        found.append(loss.kept(run(feed)))
        size += sum(array.nbytes for array in found[-1].values())
        if size > BYTES:
            break
    return found
