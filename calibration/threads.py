"""Work on activations side by side, each with one thread of numpy's matrix library.

Its own threads wait for each other by spinning, which costs more than the small products of a
layer take; and sums that do not depend on the machine's cores are the same on the next machine.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")
#: As many at a time as there are cores, up to this.
MOST = 8


def one_thread() -> AbstractContextManager[object]:
    """Numpy's matrix library with one thread, inside the block."""
    return threadpool_limits(1, user_api="blas")


def workers() -> int:
    """How many items are worked on at a time."""
    return max(1, min(os.cpu_count() or 1, MOST))


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of each item, in order; no more are begun ahead than are worked on."""
    with one_thread(), ThreadPoolExecutor(workers()) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in order, the next one made by a second thread while one is worked on."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, source, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, source, end)
            yield item  # pyright: ignore[reportReturnType]
