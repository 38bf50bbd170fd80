"""The most memory a stage held: the process's high-water mark, reset where Linux lets us."""

import resource
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class Peak:
    """Peak resident bytes, of this process or of a child it waited for, whichever is more."""

    bytes: int = 0


@contextmanager
def peak_memory() -> Generator[Peak]:
    """Measure the peak resident memory of the block, in bytes.

    Children count through `RUSAGE_CHILDREN`, whose mark cannot be reset: a later, smaller child
    does not lower it, so it counts only when it rose inside the block.
    """
    peak = Peak()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    _reset()
    try:
        yield peak
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        child = after * 1024 if after > before else 0
        peak.bytes = max(_high_water(), child)


def _reset() -> None:
    if threading.current_thread() is threading.main_thread():
        try:
            _CLEAR.write_text("5", encoding="ascii")
        except OSError:
            return


def _high_water() -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
