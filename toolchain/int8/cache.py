"""What a float graph adds to its cache, what int8 must cover of it, and what that costs."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...calibration import Feed, forward_blocks
from ...calibration.kept import spread
from ...deploy.signature import Signature
from ...passes import save
from ..feeds.rolling import PAST
from ..narrowing import Narrowing
from ..replay import replay
from .collecting import real_tokens
from .loss import Loss


@dataclass(frozen=True)
class Watch:
    """The keys and values that a float graph adds to its cache, feed by feed.

    `mask` names what marks real tokens; what lies between blocks of a large model waits in `aside`.
    """

    model: Path
    outputs: tuple[str, ...]
    mask: str | None
    aside: Path

    def __call__(self, feeds: Sequence[Feed], start: Callable[[str], Any]) -> dict[str, Any]:
        """What `start` gives for each output, once all feeds are added to it."""
        found = {name: start(name) for name in self.outputs}
        with tempfile.TemporaryDirectory(dir=self.aside, prefix=".between-") as aside:
            blocks = forward_blocks(self.model, self.outputs, feeds, Path(aside))
            for _, runs in blocks:
                for feed, real, arrays in zip(
                    feeds, real_tokens(feeds, self.mask), runs, strict=True
                ):
                    new = np.asarray(feed["input_ids"]).shape[1]
                    for name, array in arrays.items():
                        if name in found:
                            found[name].add(array, real, new)
        return found


def moved(known: Signature, feeds: Sequence[Feed]) -> list[Feed]:
    """Feeds at other positions too, where the graph is told of them and the cache is empty."""
    places, total = known.input("position_ids"), known.dims.get("total")
    if places is None or total is None or not total.max:
        return list(feeds)
    name = places.name
    far = spread([int(np.asarray(feed[name]).max()) + 1 for feed in feeds], total.max)
    pasts = [each.name for each in known.inputs if each.role.startswith(PAST)]
    return [
        {**feed, name: np.add(np.asarray(feed[name]), by, dtype=feed[name].dtype)}
        if _empty(feed, pasts)
        else feed
        for feed, by in zip(feeds, far, strict=True)
    ]


def _empty(feed: Feed, pasts: Sequence[str]) -> bool:
    return all(feed[name].shape[2] == 0 for name in pasts)


@dataclass(frozen=True)
class Compared:
    """What levels cost at the outputs, as `Loss` counts, on feeds with floats."""

    loss: Loss
    feeds: Sequence[Feed]
    narrow: Narrowing

    def __call__(self, before: Path, model: ir.Model, aside: Path) -> float:
        """The loss of a model in memory against one on disk."""
        names = self.loss.logits
        with tempfile.TemporaryDirectory(dir=aside, prefix=".levels-") as folder:
            save(model, Path(folder))
            fed = [self.narrow.feed(feed) for feed in self.feeds]
            after = replay(Path(folder) / "model.onnx", fed, names)
        wanted = replay(before, self.feeds, names)
        one, two = ([self.loss.kept(each) for each in side] for side in (wanted, after))
        return round(self.loss(one, two, self.feeds), 8)
