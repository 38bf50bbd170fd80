"""What a narrow graph takes and gives less than the dense one, and how feeds are made to fit.

Pruned heads narrow a cache or do away with it, a pruned vocabulary has other token ids, and a cache
may be int8 levels. Samples are made into feeds for the dense graph once; what runs a narrow one
gets them through here.
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
Steps = tuple[tuple[float, ...], ...]
"""What a level of each head's channels stands for."""


@dataclass(frozen=True)
class Narrowing:
    """`cuts` of inputs and outputs, those that are `gone`, and the token ids that stay.

    `ids` are old ids by their new places; one that went becomes `unknown`, a new id. `tokens` names
    the inputs that hold ids. `steps` are of caches [batch, heads, tokens, width] kept as int8
    levels, inputs and outputs.
    """

    cuts: Mapping[str, Cut] = field(default_factory=dict[str, Cut])
    gone: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()
    unknown: int = 0
    steps: Mapping[str, Steps] = field(default_factory=dict[str, Steps])

    def __bool__(self) -> bool:
        return bool(self.cuts or self.gone or self.ids or self.steps)

    def feed(self, feed: Feed) -> Feed:
        """A dense feed as the narrow graph takes it."""
        made = self.outputs(feed)
        made |= {name: self._renamed(made[name]) for name in self.tokens if name in made}
        return made | {
            name: levels(made[name], each) for name, each in self.steps.items() if name in made
        }

    def outputs(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Dense outputs as far as the narrow graph has them; a cache as `restored` gives it."""
        return {
            name: self._cut(name, array) for name, array in arrays.items() if name not in self.gone
        }

    def restored(self, known: Signature, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The narrow graph's own outputs, levels as the floats that the dense one, `known`, has."""
        kinds = {each.name: each.dtype for each in known.outputs if each.name in self.steps}
        made = {name: floats(arrays[name], self.steps[name]) for name in kinds if name in arrays}
        return {**arrays, **{name: each.astype(kinds[name]) for name, each in made.items()}}

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
        both = {**self.steps, **other.steps}
        last = other if other.ids else self
        return replace(last, cuts=cuts, gone=(*self.gone, *other.gone), steps=both)

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
        dtype = "int8" if tensor.name in self.steps else tensor.dtype
        return tensor.model_copy(update={"shape": tuple(shape), "pad": pad, "dtype": dtype})

    def save(self, folder: Path) -> None:
        """Write narrowed.json."""
        (folder / FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")


def levels(array: Array, steps: Steps) -> NDArray[np.int8]:
    """Keys or values as the levels that a graph rounds them to."""
    size = np.asarray(steps, np.float32)[None, :, None, :]
    return np.clip(np.rint(array / size), -128, 127).astype(np.int8)


def floats(array: Array, steps: Steps) -> Array:
    """What levels stand for; an array that is not of levels stays as it is."""
    if array.dtype != np.int8:
        return array
    return array * np.asarray(steps, np.float32)[None, :, None, :]


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
    steps = {name: tuple(map(tuple, each)) for name, each in found.get("steps", {}).items()}
    return Narrowing(cuts=cuts, unknown=found["unknown"], steps=steps, **rest)


def of(run: Run, stage: str, graph: str = "") -> Narrowing:
    """The narrowing of what a stage made: that of `compress` and of `quantize`, as far as it
    came of them.
    """
    made = Narrowing()
    for before in _before(run, stage):
        made = made.then(read(run.folder(before, graph)))
    return made


def home(run: Run, stage: str, graph: str = "") -> Path:
    """The folder of io.json, tokenizer and configuration of what a stage made."""
    narrowed = [name for name in _before(run, stage) if read(run.folder(name, graph))]
    return run.folder(narrowed[-1] if narrowed else "export", graph)


def _before(run: Run, stage: str) -> list[str]:
    """The stages that may have narrowed what this one made, in order."""
    if stage in ("export", "optimize", "checkpoint") or stage.startswith("float/"):
        return []
    last = ("compress",) if stage in ("compress", "calibrate") else ("compress", "quantize")
    return [name for name in last if name in run.stages]


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
