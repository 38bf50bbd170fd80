"""`llmdeploy bench`: engines side by side, warmed up and interleaved, with intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from .. import ConfigError
from ..deploy.backend import Feed
from ..deploy.footprint import Footprint, footprint
from ..deploy.latency import Timing, measure
from ..deploy.runtime import Session, load
from ..deploy.signature import Signature
from ..deploy.text import from_text
from .machine import machine
from .phases import Phase, phases
from .report import figures
from .versions import RUNTIME, versions

FILE = "bench.json"
#: The engines of a workspace, in the order in which they are shown.
ENGINES = ("float/onnxruntime", "engine/onnxruntime")
Shape = tuple[int, int]


def engines(paths: Sequence[Path], workspace: Path) -> dict[str, Path]:
    """What is timed, by the name it is shown under: the paths, or a workspace's engines.

    Raises:
        ConfigError: there is none.
    """
    if paths:
        return {str(path): path for path in paths}
    found = {name: workspace / name for name in ENGINES if (workspace / name).is_dir()}
    if not found:
        raise ConfigError(
            "no engine to time", where=workspace, mend="run `llmdeploy verify`, or name paths"
        )
    return found


def bench(
    paths: Mapping[str, Path],
    shapes: Sequence[Shape],
    *,
    rounds: int,
    threads: int,
    cold: int = 3,
) -> dict[str, Any]:
    """Time every engine at every batch and sequence; the first is what ratios are against.

    Gives `rows` of figures, `footprints` of `cold` processes an engine (none where it is 0), and
    the `environment` they were measured in.

    Raises:
        ConfigError: an engine takes more than a text gives.
    """
    with ExitStack() as stack:
        sessions = {
            name: stack.enter_context(load(path, threads=threads)) for name, path in paths.items()
        }
        for name, session in sessions.items():
            _reads(name, next(iter(session.graphs.values())))
        first = next(iter(sessions.values()))
        calls = {each: phases(first, *each) for each in shapes}
        rows = [row for at in shapes for row in _rows(sessions, calls[at], at, rounds)]
    fed = [(each.graph, each.feed) for at in shapes for each in calls[at]]
    here = machine()
    environment = {
        **here.model_dump(mode="json"),
        "threads": threads or here.cores,
        "rounds": rounds,
        "versions": versions(RUNTIME),
    }
    costs = {
        name: footprint(path, fed, threads=threads, runs=cold)
        for name, path in paths.items()
        if cold
    }
    return {"rows": rows, "footprints": _costs(costs), "environment": environment}


def _reads(name: str, signature: Signature) -> None:
    if not from_text(signature):
        takes = ", ".join(f"{one.name} [{_words(one.shape)}]" for one in signature.inputs)
        raise ConfigError(
            f"engines are timed on texts, and {name} takes {takes}",
            mend="see its latency in the report of `llmdeploy verify`",
        )


def _words(shape: Sequence[int | str]) -> str:
    return ", ".join(map(str, shape))


def _rows(
    sessions: Mapping[str, Session], calls: Sequence[Phase], at: Shape, rounds: int
) -> Iterator[dict[str, Any]]:
    """Each phase of one shape, all engines in turn."""
    for call in calls:
        runners = {name: _runner(each, call.graph) for name, each in sessions.items()}
        for timing in measure(runners, {call.shape: call.feed}, rounds=rounds):
            yield row(timing, call, at[0])


def _runner(session: Session, graph: str) -> Callable[[Feed], object]:
    return lambda feed: session.run(feed, graph)


def row(timing: Timing, call: Phase, batch: int) -> dict[str, Any]:
    """One line of the table: the engine as `model`, shape and phase as `method`, and the figures.

    `rows_per_s` and `tokens_per_s` are what calls of the median's length give in a second.
    """
    found = asdict(timing)
    shape = found.pop("shape")
    per_second = 1e3 / timing.median_ms if timing.median_ms else 0.0
    return {
        "model": found.pop("name"),
        "method": f"{shape} {call.name}".strip(),
        "phase": call.name,
        **found,
        "rows_per_s": round(batch * per_second, 3),
        "tokens_per_s": round(call.tokens * per_second, 1),
    }


def _costs(found: Mapping[str, Footprint]) -> list[dict[str, Any]]:
    return [
        {"model": name, "cold_ms": each.cold_ms, **asdict(each)} for name, each in found.items()
    ]


def shape(text: str) -> Shape:
    """`8x128` as batch and sequence.

    Raises:
        ConfigError: it is not two numbers of 1 or more.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"{text!r} is no shape", mend="write BATCHxSEQUENCE, such as 8x128")
    return int(parts[0]), int(parts[1])


def show(found: Mapping[str, Any]) -> Group:
    """The tables for people; a difference within noise is not called one."""
    head = ("engine", "shape", "median", "95 % of it", "p90", "p99", "texts/s", "tokens/s")
    table = _grid((*head, "ratio", "95 % of it", "call"), left=("engine", "call"))
    first = found["rows"][0]["model"]
    for line in found["rows"]:
        against = line["model"] != first
        span = f"{line['speedup_low']:.2f} to {line['speedup_high']:.2f}"
        table.add_row(
            line["model"],
            line["method"],
            f"{line['median_ms']:.2f} ms",
            f"{line['low_ms']:.2f} to {line['high_ms']:.2f}",
            f"{line['p90_ms']:.2f}",
            f"{line['p99_ms']:.2f}",
            figures.number(line["rows_per_s"], 3),
            figures.number(line["tokens_per_s"], 4),
            figures.ratio(line["speedup"]) if against else "",
            span if against else "",
            line["call"] if against else "reference",
        )
    costs = _grid(("engine", "cold start", "of it opening", "peak memory", "before"), ("engine",))
    for line in found["footprints"]:
        costs.add_row(
            line["model"],
            f"{line['cold_ms']:.0f} ms",
            f"{line['open_ms']:.0f} ms",
            figures.size(line["peak_bytes"]),
            figures.size(line["before_bytes"]),
        )
    return Group(table, *(["", costs] if found["footprints"] else []))


def _grid(names: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in names:
        justify = "left" if name in left else "right"
        table.add_column(name, justify=justify, overflow="fold" if name == "engine" else "ellipsis")
    return table
