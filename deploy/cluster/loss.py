"""What is lost when a process or a node ends, and doing again what was asked of it."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ray import exceptions as ray_errors  # pyright: ignore[reportMissingImports]

_Result = TypeVar("_Result")
#: Seconds for which a replacement is waited for, and between two tries.
PATIENCE, PAUSE = 60.0, 0.2

_LOST: tuple[type[Exception], ...] = (
    ray_errors.RayActorError,
    ray_errors.ObjectLostError,
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
    ray_errors.ActorPlacementGroupRemoved,
)


def lost(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that a process or its results are gone."""
    while error is not None:
        if isinstance(error, _LOST):
            return True
        error = error.__cause__ or getattr(error, "cause", None)
    return False


def again(call: Callable[[], _Result], seconds: float = PATIENCE) -> _Result:
    """What `call` gives, asked again while what it needs is lost: nothing it does is kept.

    Raises:
        Exception: the call's own, or the last loss when `seconds` have passed.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except Exception as error:
            if not lost(error) or time.monotonic() > end:
                raise
        time.sleep(PAUSE)


def bare(error: Exception) -> Exception:
    """The loss behind an error of ours, which hides it; else the error itself."""
    found: Any = error
    while found is not None:
        if isinstance(found, _LOST):
            return found
        found = found.__cause__
    return error
