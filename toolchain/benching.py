"""`llmdeploy bench`: engines side by side, warmed up and interleaved, with intervals."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from .. import ConfigError
from ..deploy.backend import Feed
from ..deploy.latency import Timing, measure
from ..deploy.runtime import Session, load
from .feeds import SENTENCES
from .machine import machine
from .report.figures import ratio
from .versions import RUNTIME, versions

FILE = "bench.json"
#: The engines of a workspace, in the order in which they are shown.
ENGINES = ("float/onnxruntime", "engine/onnxruntime")


def engines(paths: Sequence[Path], workspace: Path) -> dict[str, Path]:
    """What is timed, by the name it is shown under: the paths, or a workspace's engines.

    Raises:
        ConfigError: there is none.
    """
    found = list(paths) or [workspace / name for name in ENGINES if (workspace / name).is_dir()]
    if not found:
        raise ConfigError(
            "no engine to time", where=workspace, mend="run `llmdeploy verify`, or name paths"
        )
    return {str(path): path for path in found}


def bench(
    paths: Mapping[str, Path], shapes: Sequence[tuple[int, int]], *, rounds: int, threads: int
) -> dict[str, Any]:
    """Time every engine at every batch and sequence; the first is what ratios are against.

    Gives `rows` of figures in milliseconds and the `environment` they were measured in.
    """
    with ExitStack() as stack:
        sessions = {
            name: stack.enter_context(load(path, threads=threads)) for name, path in paths.items()
        }
        first = next(iter(sessions.values()))
        feeds = {f"{batch}x{tokens}": feed(first, batch, tokens) for batch, tokens in shapes}
        timings = measure({name: each.run for name, each in sessions.items()}, feeds, rounds=rounds)
    here = machine()
    environment = {
        **here.model_dump(mode="json"),
        "threads": threads or here.cores,
        "rounds": rounds,
        "versions": versions(RUNTIME),
    }
    return {"rows": [row(timing) for timing in timings], "environment": environment}


def row(timing: Timing) -> dict[str, Any]:
    """One line of the table: the engine as `model`, the shape as `method`, and the figures."""
    figures = asdict(timing)
    return {"model": figures.pop("name"), "method": figures.pop("shape"), **figures}


def feed(session: Session, batch: int, tokens: int) -> Feed:
    """Real words, exactly `tokens` of them in every row."""
    words = " ".join(SENTENCES) + " "
    long = words * (1 + 8 * tokens // len(words.split()))
    return session.encoder.encode([long] * batch, max_length=tokens)


def shape(text: str) -> tuple[int, int]:
    """`8x128` as batch and sequence.

    Raises:
        ConfigError: it is not two numbers of 1 or more.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"{text!r} is no shape", mend="write BATCHxSEQUENCE, such as 8x128")
    return int(parts[0]), int(parts[1])


def show(found: Mapping[str, Any]) -> Table:
    """The table for people; a difference within noise is not called one."""
    table = Table(box=None, header_style="bold")
    for name in ("engine", "shape", "median", "95 % of it", "p99", "ratio", "call"):
        table.add_column(name, justify="left" if name in ("engine", "call") else "right")
    for line in found["rows"]:
        table.add_row(
            line["model"],
            line["method"],
            f"{line['median_ms']:.2f} ms",
            f"{line['low_ms']:.2f} to {line['high_ms']:.2f}",
            f"{line['p99_ms']:.2f}",
            ratio(line["speedup"]),
            line["call"],
        )
    return table
