"""Jobs as tasks of a Ray cluster, each in a worker process of its own."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray import exceptions as ray_errors  # pyright: ignore[reportMissingImports]

from ... import BuildError
from .loss import lost

#: Index, result, error, tries and seconds of a job that ended.
Ended = tuple[int, Any, Exception | None, int, float]


@dataclass(frozen=True)
class _Running:
    index: int
    tries: int
    started: float


def run(
    work: Callable[[Any], Any],
    arguments: Sequence[Any],
    *,
    address: str,
    cores: int,
    tries: int,
) -> Iterator[Ended]:
    """Have `work` done on each argument by any node with so many `cores`; each as it ends.

    `address` is empty for the cluster that RAY_ADDRESS names, or one of this machine alone. A job
    whose worker or node dies is begun again, `tries` times in all.

    Raises:
        BuildError: the cluster cannot be reached.
    """
    joined = ray.is_initialized()
    if not joined:
        join(address)
    # A worker ends with its job: memory and environment of one are not those of the next.
    task = ray.remote(num_cpus=cores, max_retries=0, max_calls=1)(work)
    running: dict[Any, _Running] = {}

    def begin(index: int, tried: int) -> None:
        running[task.remote(arguments[index])] = _Running(index, tried, time.monotonic())

    try:
        for index in range(len(arguments)):
            begin(index, 1)
        while running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(reference)
            result, error = _answer(reference)
            if error is not None and _died(error) and job.tries < tries:
                begin(job.index, job.tries + 1)
            else:
                seconds = round(time.monotonic() - job.started, 3)
                yield job.index, result, _told(error, job.tries), job.tries, seconds
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if not joined:
            leave()


def join(address: str) -> int:
    """Join the cluster, until `leave`; how many jobs of a core each it runs at once.

    Raises:
        BuildError: the cluster cannot be reached.
    """
    known = address or os.environ.get("RAY_ADDRESS", "")
    # One of this machine alone needs no page to look at it.
    options = {"address": known} if known else {"address": "local", "include_dashboard": False}
    try:
        ray.init(**options, log_to_driver=False, logging_level="error")
    except Exception as error:
        what = f"Ray cannot be reached: {' '.join(str(error).split())[:200]}"
        raise BuildError(what, where=address, mend="start it, or ask for processes") from error
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def leave() -> None:
    """Leave the cluster; one of this machine alone ends."""
    ray.shutdown()


def _answer(reference: Any) -> tuple[Any, Exception | None]:
    try:
        return ray.get(reference), None
    except ray_errors.RayTaskError as error:
        return None, error.cause if isinstance(error.cause, Exception) else error
    except Exception as error:
        return None, error


def _died(error: Exception) -> bool:
    return lost(error) or isinstance(error, ray_errors.OutOfMemoryError)


def _told(error: Exception | None, tries: int) -> Exception | None:
    """Ray's own words for a death are a page long."""
    if error is None or not _died(error):
        return error
    return BuildError(f"its worker died {tries} times: {type(error).__name__}")
