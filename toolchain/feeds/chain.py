"""From what a task takes to what each of its graphs takes, by running the graphs before it."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from ...deploy.backend import Feed
from ...deploy.rules import start_id
from ...deploy.signature import Signature
from ..run import Run
from .rolling import Call, keeps_cache, started, steps, whole
from .streamed import continued, is_large

#: Greedy tokens that a cache is filled with.
TOKENS = 6
#: The same to calibrate a decoder beside an encoder: it sees no other tokens.
WRITTEN = 24
#: Every how many batches of calibration samples one is continued, and how many at most: a cache
#: is memory.
EVERY, MOST = 4, 8
#: At most so many of a model larger than memory.
FEW = 2


class Chain:
    """The feeds of one graph of an export, made from those of its first graph."""

    def __init__(self, run: Run, graph: str = "") -> None:
        self._run = run
        self._graph = graph
        self._signature = Signature.load(run.folder("export", graph))

    def parity(self, feeds: Iterable[Feed]) -> Iterator[Feed]:
        """Feeds to compare graphs on: with an empty cache, and with the one that running gave."""
        if not keeps_cache(self._signature):
            yield from feeds
            return
        for feed in feeds:
            yield from self._beside_first(feed) if self._beside else (feed, self._last(feed))

    def _beside_first(self, feed: Feed) -> Iterator[Feed]:
        rolled = self._rolled(feed)
        yield from (rolled[0], rolled[-1], whole(self._signature, rolled))

    def calibration(self, feeds: Sequence[Feed]) -> tuple[Feed, ...]:
        """Feeds to take ranges from: all tokens at once, and single ones with a filled cache."""
        if not keeps_cache(self._signature):
            return tuple(feeds)
        if not self._beside:
            return (*feeds, *self._continued(feeds[::EVERY]))
        made: list[Feed] = []
        for feed in feeds:
            rolled = self._rolled(feed, WRITTEN)
            made += [whole(self._signature, rolled), rolled[-1]]
        return tuple(made)

    def _continued(self, feeds: Sequence[Feed]) -> tuple[Feed, ...]:
        """Single tokens after some of the feeds; after fewer where the weights are many."""
        path = self._run.folder("export", self._graph) / "model.onnx"
        if is_large(path):
            return continued(path, self._signature, feeds[:FEW])
        return tuple(self._last(feed) for feed in feeds[:MOST])

    @property
    def words(self) -> str:
        """What is said of the feeds, empty where they are the samples themselves."""
        if not keeps_cache(self._signature):
            return ""
        what = f"; and greedy steps with the cache that up to {TOKENS} tokens left"
        return f"{what}, after the encoder was run" if self._beside else what

    @property
    def _beside(self) -> bool:
        """Whether the graph is a decoder beside an encoder."""
        return self._graph != self._run.graphs[0]

    @cached_property
    def _call(self) -> Call:
        from ..replay import opened

        return opened(self._run.folder("export", self._graph) / "model.onnx", arena=False)

    @cached_property
    def _encode(self) -> Call:
        from ..replay import opened

        return opened(self._run.folder("export", self._run.graphs[0]) / "model.onnx", arena=False)

    def _rolled(self, feed: Feed, tokens: int = TOKENS) -> list[Feed]:
        if self._beside:
            start = start_id(self._run.folder("export"))
            feed = started(self._signature, feed, self._encode(feed), start)
        return list(self._steps(feed, tokens))

    def _last(self, feed: Feed) -> Feed:
        """The feed of the last of the greedy steps; caches of those before it are let go."""
        (last,) = deque(self._steps(feed, TOKENS), maxlen=1)
        return last

    def _steps(self, feed: Feed, tokens: int) -> Iterator[Feed]:
        return steps(self._call, self._signature, feed, self._room(feed, tokens))

    def _room(self, feed: Feed, tokens: int) -> int:
        """How many more tokens the graph takes."""
        total = self._signature.dims.get("total") or self._signature.dims.get("sequence")
        name = next(tensor.name for tensor in self._signature.inputs if tensor.role == "input_ids")
        limit = total.max if total and total.max else feed[name].shape[1] + tokens
        return max(0, min(tokens - 1, limit - feed[name].shape[1]))
