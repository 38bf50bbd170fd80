"""Which layers stay in float: as few multiply-adds as hold the budget, by measured sensitivity."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...calibration import Calibrated, Feed, is_large
from ...passes import PassManager, Step, load, save
from ...passes.quantize import Quantize
from ...passes.switch import PREFIX, Switch
from ..replay import Outputs, Probe, replay, replaying, unpadded
from .layers import Rounded, float_passes, smoothed
from .loss import Loss

#: Held-out batches that decide, at most, and as far as this many bytes of outputs go.
BATCHES, BYTES = 16, 256 << 20
#: Of these, as many decide in which order layers go back to float, by so many tokens of each.
RANKING, TOKENS = 4, 256
#: How much of the groups is left in float where the drop is drawn against the share in INT8.
PARTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7)
#: Groups of layers are left in float until this much of the budget is used, as far as drops add.
SLACK = 0.95


@dataclass(frozen=True)
class Result:
    """What was written: the layers left in float, the drop that remains, each site's own drop.

    `drop` is `Loss`'s; None where nothing was measured. `unsure` says why it is no cosine.
    `curve` holds sets of layers in float that grow, what harms most first, each with its drop on
    few tokens.
    """

    kept: frozenset[str]
    drop: float | None
    sensitivity: Mapping[str, float]
    steps: tuple[Step, ...]
    curve: tuple[tuple[frozenset[str], float], ...] = ()
    unsure: str = ""


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
        self.unsure = loss.unsure(self.wanted, self.feeds) if feeds else ""
        self.large = is_large(model)

    def run(self, folder: Path, keep: frozenset[str], max_drop: float) -> Result:
        """Write model.onnx with as few layers in float as hold `max_drop`, beside `keep`."""
        steps = self.write(folder, keep)
        if not self.feeds:
            return Result(keep, None, {}, steps)
        drop = self.measured(self._outputs(folder))
        holds = drop <= max_drop
        if holds and self.large:
            return Result(keep, drop, {}, steps, unsure=self.unsure)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as aside:
            trial = Trial(self, Path(aside))
            alone = {} if holds else trial.alone(keep)
            order = self.ranked(alone if alone else self._errors(keep))
            curve = () if self.large else trial.curve(keep, order)
            kept = keep if holds else trial.hold(keep, order, max_drop)
        if holds:
            return Result(keep, drop, {}, steps, curve, self.unsure)
        steps = self.write(folder, kept)
        drop = self.measured(self._outputs(folder))
        return Result(kept, drop, alone, steps, curve, self.unsure)

    def measured(self, outputs: Sequence[Outputs]) -> float:
        """The loss of a model's outputs on the held-out feeds."""
        return self.loss(self.wanted, outputs, self.feeds)

    def _outputs(self, folder: Path) -> list[Outputs]:
        found = replay(folder / "model.onnx", self.feeds, self.loss.logits)
        return [self.loss.kept(each) for each in found]

    def _errors(self, keep: Collection[str]) -> dict[str, float]:
        """The errors at the outputs of each activation's layers, where no drop is measured."""
        found: dict[str, float] = {}
        for name, each in self.calibrated.ranges.items():
            layers = [node for node in each.layers if node not in keep]
            if layers:
                found[name] = sum(self.rounded[node].error for node in layers)
        return found

    def write(self, folder: Path, keep: Collection[str]) -> tuple[Step, ...]:
        """The Q/DQ graph with the layers in `keep` left in float."""
        layers = {n: r.int8 for n, r in self.rounded.items() if n not in keep}
        graph, smooth = PassManager(
            float_passes(self.calibrated, keep),
            verify=self._probe(),
        ).run(load(self.model))
        graph, quantize = PassManager([Quantize(layers=layers)]).run(graph)
        save(graph, folder)
        return (*smooth, *quantize)

    def _probe(self) -> Probe | None:
        """The outputs of a few tokens, none of them padding."""
        if not self.feeds:
            return None
        return Probe([few(unpadded(self.feeds[0], self.loss.mask), TOKENS)])

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
        # its weights are there in float and INT8: going by its own size, a model that fits would
        # be read from disk in blocks at each of hundreds of calls
        path = folder / "model.onnx"
        self._run = replaying(path, search.loss.logits, large=search.large)
        self._few = [few(feed, TOKENS) for feed in search.feeds[:RANKING]]

    def _outputs(self, feeds: Sequence[Feed], kept: Collection[str]) -> list[Outputs]:
        """What counts of the outputs, with these layers in float and all others in INT8."""
        switches = {f"{PREFIX}{name}": np.array(name not in kept) for name in self._search.rounded}
        found = self._run([{**feed, **switches} for feed in feeds])
        return [self._search.loss.kept(each) for each in found]

    def drop(self, kept: Collection[str]) -> float:
        """The drop with these layers in float and all others in INT8."""
        return self._search.measured(self._outputs(self._search.feeds, kept))

    def alone(self, keep: frozenset[str]) -> dict[str, float]:
        """The drop that each activation's layers cause alone, on few tokens: it only ranks them.

        Nothing for a model larger than memory: each drop would be a walk through all its blocks.
        """
        everything, found = frozenset(self._search.rounded), dict[str, float]()
        if self._search.large:
            return found
        wanted = self._outputs(self._few, everything)
        for name, each in self._search.calibrated.ranges.items():
            layers = frozenset(each.layers) - keep
            if layers:
                outputs = self._outputs(self._few, everything - layers)
                found[name] = self._search.loss(wanted, outputs, self._few)
        return found

    def curve(
        self, keep: frozenset[str], groups: Sequence[frozenset[str]]
    ) -> tuple[tuple[frozenset[str], float], ...]:
        """The drop with more and more of the first groups in float, on few tokens."""
        counts = sorted({round(share * len(groups)) for share in PARTS} - {len(groups)})
        wanted = self._outputs(self._few, frozenset(self._search.rounded))
        found: list[tuple[frozenset[str], float]] = []
        for kept in (keep.union(*groups[:count]) for count in counts):
            outputs = self._outputs(self._few, kept)
            found.append((kept, self._search.loss(wanted, outputs, self._few)))
        return tuple(found)

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
    """The float model's outputs, of about as many feeds as `BYTES` of them allow, of one at least.

    In two goes: a model larger than memory is read whole for each.
    """
    run = replaying(model, loss.logits)
    first = [loss.kept(each) for each in run(feeds[:1])]
    size = sum(array.nbytes for array in first[0].values())
    more = feeds[1 : BYTES // max(size, 1) + 1]
    return first + ([loss.kept(each) for each in run(more)] if more else [])
