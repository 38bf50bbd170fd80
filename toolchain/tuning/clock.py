"""One machine's clock: while someone times, nobody works; while someone works, nobody times.

A lock of readers and a writer from two files, by flock(2): workers share the door, who times has it
alone. Who wants to time keeps the gate, so that no new work begins before.
"""

import fcntl
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ... import Error


class Clock:
    """The lock of this machine and user, whichever workspace is tuned; one thread a process."""

    def __init__(self, folder: Path | None = None) -> None:
        place = folder or Path(tempfile.gettempdir())
        self._gate = place / f".llmdeploy-{os.getuid()}.gate"
        self._door = place / f".llmdeploy-{os.getuid()}.door"
        self._depth = 0

    @contextmanager
    def working(self) -> Generator[None]:
        """Work, beside others that do; within itself it is one."""
        if self._depth:
            yield
            return
        with _held(self._gate, fcntl.LOCK_EX):
            handle = _open(self._door, fcntl.LOCK_SH)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            os.close(handle)

    @contextmanager
    def timing(self) -> Generator[None]:
        """Time, alone on the machine as far as it is tuned; work within it is the timer's own."""
        with _held(self._gate, fcntl.LOCK_EX), _held(self._door, fcntl.LOCK_EX):
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1


@contextmanager
def _held(path: Path, kind: int) -> Generator[None]:
    handle = _open(path, kind)
    try:
        yield
    finally:
        os.close(handle)


def _open(path: Path, kind: int) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Error(f"cannot lock: {error.strerror}", where=path, mend="set TMPDIR") from error
    fcntl.flock(handle, kind)
    return handle
