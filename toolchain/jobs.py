"""Jobs side by side: in processes of this machine, or as tasks of a Ray cluster.

A job is a function of a module and one argument, both pickled. Each has a process of its own, so
that what it holds and how it ends is its own: one that dies takes no other with it and is tried
again.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from .. import ConfigError, Error, MissingError

#: How often a job is begun whose process dies; an error that it raises is its answer.
TRIES = 2


class DiedError(Error):
    """The process of a job died without an answer; `how` it did."""

    def __init__(self, how: str, tries: int) -> None:
        self.how, self.tries = how, tries
        died = f"died {tries} times, at last" if tries > 1 else "died"
        super().__init__(f"its process {died} of {how}", mend="look at memory")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.how, self.tries)


@dataclass(frozen=True)
class Place:
    """Where jobs run: so many processes here, or a Ray cluster.

    `address` is what Ray is given: empty for the cluster that RAY_ADDRESS names, or one of this
    machine alone. None where Ray is not asked for.
    """

    processes: int = 1
    address: str | None = None

    @classmethod
    def of(cls, text: str) -> "Place":
        """A place from what `--jobs` says: N, `ray`, `ray:HOST:PORT` or `ray://HOST:PORT`.

        Raises:
            ConfigError: it is none of these.
        """
        if text.isdecimal() and int(text):
            return cls(int(text))
        if text == "ray" or text.startswith("ray:"):
            return cls(address=text if text.startswith("ray://") else text[len("ray:") :])
        mend = "a number of processes, ray, or ray:HOST:PORT"
        raise ConfigError(f"{text!r} is no place to run jobs", where="--jobs", mend=mend)


@dataclass(frozen=True)
class Ended:
    """How one job ended: its result, or the error that it raised or that its process died of."""

    index: int
    result: Any = None
    error: Exception | None = None
    tries: int = 1
    seconds: float = 0.0


def run(
    work: Callable[[Any], Any],
    arguments: Sequence[Any],
    place: Place | None = None,
    *,
    cores: int = 1,
    tries: int = TRIES,
) -> Iterator[Ended]:
    """Have `work` done on each argument; each job as it ends, in that order.

    `cores` is what a job asks of a Ray node. Closing the iterator ends what still runs.

    Raises:
        MissingError: Ray is asked for and is not installed.
    """
    place = place or Place()
    if place.address is None:
        return _processes(work, arguments, place.processes, tries)
    tasks = _tasks()
    ended = tasks.run(work, arguments, address=place.address, cores=cores, tries=tries)
    return (Ended(*each) for each in ended)


@contextmanager
def joined(place: Place) -> Generator[int]:
    """Hold on to a place for many runs; how many jobs of a core each it does at once.

    Raises:
        MissingError: Ray is asked for and is not installed.
        BuildError: the cluster cannot be reached.
    """
    if place.address is None:
        yield place.processes
        return
    tasks = _tasks()
    count = tasks.join(place.address)
    try:
        yield count
    finally:
        tasks.leave()


def _tasks() -> Any:
    try:
        from ..deploy.cluster import tasks
    except ImportError as error:
        mend = "pip install 'llmdeploy[ray]', or ask for a number of processes"
        raise MissingError(f"{error.name} is not installed", mend=mend) from error
    return tasks


@dataclass(frozen=True)
class _Running:
    process: Any
    index: int
    tries: int
    started: float


def _processes(
    work: Callable[[Any], Any], arguments: Sequence[Any], count: int, tries: int
) -> Iterator[Ended]:
    waiting = deque((index, 1) for index in range(len(arguments)))
    running: dict[Any, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < count:
                index, tried = waiting.popleft()
                pipe, process = _begin(work, arguments[index])
                running[pipe] = _Running(process, index, tried, time.monotonic())
            for pipe in wait(list(running)):
                job = running.pop(pipe)
                ended = _end(pipe, job)
                if ended is None and job.tries < tries:
                    waiting.appendleft((job.index, job.tries + 1))
                else:
                    yield ended or _dead(job)
    finally:
        for job in running.values():
            job.process.kill()


def _begin(work: Callable[[Any], Any], argument: Any) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    # Not a daemon: a job may have processes of its own.
    process = context.Process(target=_child, args=(theirs, work, argument))
    process.start()
    theirs.close()
    return ours, process


def _child(pipe: Any, work: Callable[[Any], Any], argument: Any) -> None:
    # Ctrl-C reaches every process of a terminal; what it ends is the parent's to say.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of what runs in the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        answer = (work(argument), None)
    except Exception as error:
        answer = (None, error)
    try:
        pipe.send(answer)
    except Exception:  # an error that cannot be pickled is told in words
        pipe.send((None, Error(str(answer[1] or "a job's result cannot be sent"))))


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end(pipe: Any, job: _Running) -> Ended | None:
    """What a job answered; None where its process died without an answer."""
    answer: tuple[Any, Exception | None] | None = None
    with suppress(EOFError, OSError):
        answer = pipe.recv()
    pipe.close()
    job.process.join()
    seconds = round(time.monotonic() - job.started, 3)
    if answer is None:
        return None
    result, error = answer
    return Ended(job.index, result, error, job.tries, seconds)


def _dead(job: _Running) -> Ended:
    code = job.process.exitcode
    how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
    seconds = round(time.monotonic() - job.started, 3)
    return Ended(job.index, None, DiedError(how, job.tries), job.tries, seconds)
