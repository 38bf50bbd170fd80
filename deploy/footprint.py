"""What an engine costs before it is warm: seconds to its first answer, and the memory it holds.

Each is measured in a process of its own: a process that has run one engine is not cold, and its
high-water mark of memory is that of everything it ever held.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import BuildError

Feed = Mapping[str, NDArray[Any]]
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Footprint:
    """Milliseconds to open an engine and to its first answer after that; resident bytes.

    `peak_bytes` is the most the process held through all feeds, `before_bytes` what it held
    before the engine was opened: the interpreter and its libraries. The times are medians of
    `runs` processes, the bytes the most of any.
    """

    open_ms: float
    first_ms: float
    peak_bytes: int
    before_bytes: int
    runs: int

    @property
    def cold_ms(self) -> float:
        """From opening the engine to its first answer."""
        return round(self.open_ms + self.first_ms, 3)


def footprint(
    path: Path, feeds: Sequence[tuple[str, Feed]], *, threads: int = 0, runs: int = 3
) -> Footprint:
    """Open what is at `path`, and run (graph, feed) pairs in order, `runs` times anew.

    Raises:
        BuildError: the engine cannot be opened or run.
    """
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder:
        files = [str(Path(folder) / f"{index}.npz") for index in range(len(feeds))]
        for file, (_, feed) in zip(files, feeds, strict=True):
            np.savez(file, allow_pickle=False, **dict(feed))
        graphs = [graph for graph, _ in feeds]
        spec = {"path": str(path), "feeds": list(zip(graphs, files, strict=True))}
        found = [_once({**spec, "threads": threads}) for _ in range(runs)]
    return Footprint(
        open_ms=round(median(each["open_ms"] for each in found), 3),
        first_ms=round(median(each["first_ms"] for each in found), 3),
        peak_bytes=max(int(each["peak_bytes"]) for each in found),
        before_bytes=max(int(each["before_bytes"]) for each in found),
        runs=runs,
    )


def _once(spec: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "llmdeploy.deploy.footprint"]
    done = subprocess.run(
        command, input=json.dumps(spec).encode(), capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise BuildError(f"the engine cannot be run alone: {said[0][:200]}", where=spec["path"])
    return json.loads(done.stdout)


def main() -> None:
    """Measure one engine by a spec on stdin; the figures as JSON on stdout."""
    from .runtime import load

    spec = json.load(sys.stdin)
    feeds = [(graph, dict(np.load(file))) for graph, file in spec["feeds"]]
    before = _resident("VmRSS")
    started = time.perf_counter()
    with load(Path(spec["path"]), threads=spec["threads"]) as session:
        opened = time.perf_counter()
        session.run(feeds[0][1], feeds[0][0])
        answered = time.perf_counter()
        for graph, feed in feeds[1:]:
            session.run(feed, graph)
        peak = _resident("VmHWM")
    found = {"open_ms": (opened - started) * 1e3, "first_ms": (answered - opened) * 1e3}
    json.dump({**found, "peak_bytes": peak, "before_bytes": before}, sys.stdout)


def _resident(key: str) -> int:
    """Resident bytes of this process: now (VmRSS), or the most so far (VmHWM)."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
