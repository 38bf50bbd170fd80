"""Who carries trials out, so many at a time: processes of this machine, or a Ray cluster's workers.

A trial is begun once: what dies with its worker is one trial.
"""

import multiprocessing
from concurrent.futures import Future, ThreadPoolExecutor

from ... import MissingError
from .. import jobs
from .result import Asked, Result
from .worker import answer, understood


class LostError(Exception):
    """The worker of a trial died without an answer; the words say how."""


class Hands:
    """So many trials at once; each is a future of its result, or of `LostError`."""

    def __init__(self, place: jobs.Place) -> None:
        self._place = place
        self.count = place.processes if place.address is None else _joined(place.address)
        self._pool = ThreadPoolExecutor(self.count)

    def take(self, asked: Asked) -> "Future[Result]":
        """Begin a trial."""
        return self._pool.submit(self._carried, asked.model_dump_json())

    def close(self) -> None:
        """End what still runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._place.address is not None:
            _left()
        for child in multiprocessing.active_children():
            child.kill()
        self._pool.shutdown(wait=True)

    def _carried(self, asked: str) -> Result:
        (ended,) = jobs.run(answer, [asked], self._place, tries=1)
        if ended.error is not None:
            raise LostError(str(ended.error))
        return understood(ended.result)


def _joined(address: str) -> int:
    """Join the cluster for the whole search; how many trials it runs at once, a core each.

    Raises:
        MissingError: Ray is not installed, or does not answer.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        mend = "pip install 'llmdeploy[ray]', or ask for a number of processes"
        raise MissingError(f"{error.name} is not installed", mend=mend) from error
    try:
        ray.init(address=address or None, log_to_driver=False, logging_level="error")
    except Exception as error:
        what = f"Ray cannot be reached: {' '.join(str(error).split())[:200]}"
        raise MissingError(what, where=address, mend="start it, or --jobs 2") from error
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _left() -> None:
    import ray  # pyright: ignore[reportMissingImports]

    ray.shutdown()
