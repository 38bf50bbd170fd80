"""What a server does with a request, whichever protocol it came by."""

import asyncio
from collections.abc import Awaitable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ... import BundleError, ConfigError
from ..lengths import alike, room
from .batching import Batcher
from .guard import Metrics
from .keeper import Keeper, Served
from .limits import Limits
from .parts import cut, joined
from .shapes import fit, refusal
from .tensors import Arrays, rows_of
from .writing import Scribes

T = TypeVar("T")
#: Requests whose texts are read at a time.
READERS = 4


class Service:
    """A model, the queue of what runs on it, and the threads that write."""

    def __init__(self, keeper: Keeper, limits: Limits, poll: float, workers: int = 1) -> None:
        self.keeper = keeper
        self.limits = limits
        self.metrics = Metrics()
        self.scribes = Scribes(limits)
        self.ready = False
        self._batcher = Batcher(_call, limits, workers)
        self._batcher.seen = self.metrics.batches.observe
        self._poll = poll
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        self._batcher.start()
        self._task = asyncio.create_task(self.keeper.follow(self._poll))
        self.ready = True

    async def stop(self) -> None:
        """End, after the last request."""
        self.ready = False
        if self._task:
            self._task.cancel()
        await self._batcher.stop()
        await self.scribes.stop()
        await asyncio.to_thread(self._readers.shutdown)
        self.keeper.model.retire()

    async def infer(self, served: Served, arrays: Arrays) -> Arrays:
        """The engine's outputs; with other requests of like shapes where the graph allows.

        Raises:
            ConfigError: the graph does not take such arrays.
            TimeoutError: it took too long.
        """
        if served.session.signature.components:
            raise ConfigError("a model of several graphs takes no arrays", mend="give texts")
        fit(served.session.signature, arrays)
        rows = rows_of(served.session.signature, arrays)
        like = tuple((name, each.dtype.name, each.shape[1:]) for name, each in arrays.items())
        key: Hashable = ("arrays", served, like if rows else object())
        parts = self._parts(served, arrays, rows) if rows else [(arrays, self.limits.batch)]
        try:
            return joined(await self.within(self._batcher.each(key, parts)))
        except BundleError as error:
            told = refusal(error, served.session.signature, arrays)
            if told is None:
                raise
            raise told from error

    def _parts(self, served: Served, arrays: Arrays, rows: int) -> list[tuple[Arrays, int]]:
        """A request's parts and how much of a batch each fills: a row of many tokens fills more."""
        ids = served.session.signature.input("input_ids")
        most = room(self.limits.batch, arrays[ids.name].shape[-1] if ids else 0)
        share = self.limits.batch // most
        return [(part, share * count) for part, count in cut(arrays, rows, most)]

    async def embed(self, served: Served, texts: list[str]) -> tuple[NDArray[np.float32], int]:
        """Embeddings [texts, width], and the tokens of all texts.

        Texts are read beside the engine: one of megabytes takes seconds, and others go on.
        """
        return await self.within(self._embedded(served, texts))

    async def _embedded(self, served: Served, texts: list[str]) -> tuple[NDArray[np.float32], int]:
        loop = asyncio.get_running_loop()
        encodings = await loop.run_in_executor(self._readers, served.session.encodings, texts)
        lengths = [len(each.ids) for each in encodings]
        places = list(alike(lengths, self.limits.batch, spread=inf))
        parts = [
            ([encodings[place] for place in part], self._fills(part, lengths)) for part in places
        ]
        found = await self._batcher.each(("texts", served, None), parts)
        back = np.argsort([place for part in places for place in part])
        return np.concatenate(found)[back], sum(lengths)

    def _fills(self, part: Sequence[int], lengths: Sequence[int]) -> int:
        """How much of a batch some texts fill: long ones more."""
        longest = max(lengths[place] for place in part)
        return len(part) * (self.limits.batch // room(self.limits.batch, longest))

    async def within(self, work: Awaitable[T]) -> T:
        """What a request's work gives, in the time that one may take.

        Raises:
            TimeoutError: it takes longer.
        """
        async with asyncio.timeout(self.limits.seconds):
            return await work


def _call(key: Any, items: Sequence[Any]) -> list[Any]:
    kind, served, _ = key
    if kind == "texts":
        rows = served.session.embed_encodings([each for part in items for each in part])
        return _split(rows, [len(part) for part in items])
    if len(items) == 1:
        return [served.session.run(items[0])]
    names = list(items[0])
    feed = {name: np.concatenate([arrays[name] for arrays in items]) for name in names}
    sizes = [len(arrays[names[0]]) for arrays in items]
    parts = {name: _split(array, sizes) for name, array in served.session.run(feed).items()}
    return [{name: parts[name][index] for name in parts} for index in range(len(items))]


def _split(rows: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    return np.split(rows, np.cumsum(sizes)[:-1])
