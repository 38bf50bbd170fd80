"""Who carries trials out, so many at a time: processes of this machine, or a Ray cluster's workers.

A trial is begun once: what dies with its worker is one trial.
"""

import multiprocessing
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from .. import jobs
from .result import Asked, Result
from .worker import answer, understood


class LostError(Exception):
    """The worker of a trial died without an answer; the words say how."""


class Hands:
    """So many trials at once; each is a future of its result, or of `LostError`."""

    def __init__(self, place: jobs.Place) -> None:
        self._place, self._stack = place, ExitStack()
        self.count = self._stack.enter_context(jobs.joined(place))
        self._pool = ThreadPoolExecutor(self.count)

    def take(self, asked: Asked) -> "Future[Result]":
        """Begin a trial."""
        return self._pool.submit(self._carried, asked.model_dump_json())

    def close(self) -> None:
        """End what still runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._stack.close()
        for child in multiprocessing.active_children():
            child.kill()
        self._pool.shutdown(wait=True)

    def _carried(self, asked: str) -> Result:
        (ended,) = jobs.run(answer, [asked], self._place, tries=1)
        if ended.error is not None:
            raise LostError(str(ended.error))
        return understood(ended.result)
