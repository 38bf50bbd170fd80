"""Dynamic batching: requests that come together and fit together run as one."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .limits import Limits

Call = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True)
class _Job:
    key: Hashable
    item: Any
    rows: int
    future: "asyncio.Future[Any]"


class Batcher:
    """Runs `call(key, items)` on the waiting items of a key, one result an item.

    `workers` threads run so many groups side by side: one where the engine is in this process.

    Of a group that fails each item is run again alone: nobody pays for another's bad input.
    """

    def __init__(self, call: Call, limits: Limits, workers: int = 1) -> None:
        self._call = call
        self._limits = limits
        self._workers = workers
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(workers, "engine")
        self._free = asyncio.Semaphore(workers)
        self._running: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        #: Items of the groups that ran.
        self.seen: Callable[[int], object] = lambda _: None

    def start(self) -> None:
        """Begin, on the loop that runs."""
        self._task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        """End; what still waits is cancelled."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for running in tuple(self._running):
            running.cancel()
        await asyncio.to_thread(self._pool.shutdown)

    async def __call__(self, key: Hashable, item: Any, rows: int) -> Any:
        """The result of one item, whichever others it ran with."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Job(key, item, rows, future))
        return await future

    async def each(self, key: Hashable, items: Sequence[tuple[Any, int]]) -> list[Any]:
        """The results of items with their rows, in order.

        No more of them wait at a time than can run: what others ask comes between.
        """
        found: list[Any] = []
        for start in range(0, len(items), self._workers):
            part = items[start : start + self._workers]
            found += await asyncio.gather(*(self(key, item, rows) for item, rows in part))
        return found

    async def _loop(self) -> None:
        left: _Job | None = None
        while True:
            first = left or await self._queue.get()
            jobs, left = await self._gather(first)
            groups: dict[Hashable, list[_Job]] = {}
            for job in jobs:
                if not job.future.done():  # who asked may have gone
                    groups.setdefault(job.key, []).append(job)
            for key, group in groups.items():
                await self._free.acquire()
                running = asyncio.create_task(self._run(key, group))
                self._running.add(running)
                running.add_done_callback(self._ran)
            await self._free.acquire()  # go on gathering until a worker could run it
            self._free.release()

    def _ran(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._free.release()

    async def _gather(self, first: _Job) -> tuple[list[_Job], _Job | None]:
        """The jobs to run now, and one that was taken and found too large to go with them."""
        jobs, rows = [first], first.rows
        end = asyncio.get_running_loop().time() + self._limits.wait
        while rows < self._limits.batch:
            try:
                async with asyncio.timeout_at(end):
                    job = await self._queue.get()
            except TimeoutError:
                break
            if rows + job.rows > self._limits.batch:
                return jobs, job
            jobs.append(job)
            rows += job.rows
        return jobs, None

    async def _run(self, key: Hashable, group: list[_Job]) -> None:
        loop = asyncio.get_running_loop()
        try:
            items = [job.item for job in group]
            results = await loop.run_in_executor(self._pool, self._call, key, items)
        except Exception as error:
            if len(group) == 1:
                _fail(group[0], error)
            else:
                for job in group:
                    await self._run(key, [job])
            return
        self.seen(len(group))
        for job, result in zip(group, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
