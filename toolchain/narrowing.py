"""What a compressed graph takes and gives less than the dense one, and how feeds are made to fit.

Pruned heads narrow a cache or do away with it; a pruned vocabulary has other token ids. Samples are
made into feeds for the dense graph once; what runs the compressed one gets them through here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deploy.backend import Feed
from ..deploy.signature import Signature, Tensor
from .run import Run

FILE = "narrowed.json"
Array = NDArray[Any]
Cut = tuple[int, tuple[int, ...]]
"""An axis, and the places of it that stay."""


@dataclass(frozen=True)
class Narrowing:
    """`cuts` of inputs and outputs, those that are `gone`, and the token ids that stay.

    `ids` are old ids by their new places; one that went becomes `unknown`, a new id. `tokens` names
    the inputs that hold ids.
    """

    cuts: Mapping[str, Cut] = field(default_factory=dict[str, Cut])
    gone: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()
    unknown: int = 0

    def __bool__(self) -> bool:
        return bool(self.cuts or self.gone or self.ids)

    def feed(self, feed: Feed) -> Feed:
        """A dense feed as the narrow graph takes it."""
        made = self.outputs(feed)
        return made | {name: self._renamed(made[name]) for name in self.tokens if name in made}

    def outputs(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Dense outputs as far as the narrow graph has them."""
        return {
            name: self._cut(name, array) for name, array in arrays.items() if name not in self.gone
        }

    def _cut(self, name: str, array: Array) -> Array:
        if name not in self.cuts:
            return array
        axis, kept = self.cuts[name]
        return np.ascontiguousarray(np.take(array, np.array(kept, np.int64), axis=axis))

    def _renamed(self, ids: Array) -> Array:
        table = np.full(max(int(ids.max(initial=0)), *self.ids) + 1, self.unknown, ids.dtype)
        table[list(self.ids)] = np.arange(len(self.ids))
        return table[ids]

    def then(self, other: "Narrowing") -> "Narrowing":
        """Both, `other` being of the graph that this one left."""
        cuts = dict(self.cuts)
        for name, (axis, kept) in other.cuts.items():
            before = cuts[name][1] if name in cuts else None
            cuts[name] = (axis, tuple(before[at] for at in kept) if before else kept)
        return replace(other if other.ids else self, cuts=cuts, gone=(*self.gone, *other.gone))

    def signature(self, known: Signature) -> Signature:
        """io.json of the narrow graph."""
        return known.model_copy(
            update={"inputs": self._tensors(known.inputs), "outputs": self._tensors(known.outputs)}
        )

    def _tensors(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self._tensor(each) for each in tensors if each.name not in self.gone)

    def _tensor(self, tensor: Tensor) -> Tensor:
        shape, pad = list(tensor.shape), tensor.pad
        if tensor.name in self.cuts:
            axis, kept = self.cuts[tensor.name]
            shape[axis] = len(kept)
        if tensor.name in self.tokens and pad is not None:
            pad = self.ids.index(pad) if pad in self.ids else self.unknown
        return tensor.model_copy(update={"shape": tuple(shape), "pad": pad})

    def save(self, folder: Path) -> None:
        """Write narrowed.json."""
        (folder / FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")


def read(folder: Path) -> Narrowing:
    """The narrowing of a stage's graph; none where the stage has not that file."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Narrowing()
    return from_plain(found)


def from_plain(found: Mapping[str, Any]) -> Narrowing:
    """A narrowing out of its JSON."""
    cuts = {name: (axis, tuple(kept)) for name, (axis, kept) in found["cuts"].items()}
    rest = {key: tuple(found[key]) for key in ("gone", "ids", "tokens")}
    return Narrowing(cuts=cuts, unknown=found["unknown"], **rest)


def of(run: Run, stage: str, graph: str = "") -> Narrowing:
    """The narrowing of what a stage made: that of `compress` for it, and for what came of it."""
    if stage in ("export", "optimize", "checkpoint") or stage.startswith("float/"):
        return Narrowing()
    return read(run.folder("compress", graph)) if "compress" in run.stages else Narrowing()


def home(run: Run, stage: str, graph: str = "") -> Path:
    """The folder of io.json, tokenizer and configuration of what a stage made."""
    return run.folder("compress" if of(run, stage, graph) else "export", graph)


def fitted(run: Run, stage: str, graph: str, feeds: Sequence[Feed]) -> tuple[Feed, ...]:
    """Dense feeds as the graph of a stage takes them."""
    narrow = of(run, stage, graph)
    return tuple(narrow.feed(feed) for feed in feeds) if narrow else tuple(feeds)


def through(narrowing: Narrowing, call: Callable[[Feed], Any]) -> Callable[[Feed], Any]:
    """A narrow graph's call as one of dense feeds; a feed is made to fit once, not each time."""
    if not narrowing:
        return call
    known: dict[int, tuple[Feed, Feed]] = {}

    def fitted(feed: Feed) -> Any:
        if id(feed) not in known:
            known[id(feed)] = (feed, narrowing.feed(feed))
        return call(known[id(feed)][1])

    return fitted
