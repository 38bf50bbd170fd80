"""A search as people read it on a terminal: the rules, each trial, the end."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..report import figures
from ..report.tuning import Point, Tuning
from .advising import Advised
from .hardware import Hardware
from .result import Result
from .roofline import Call
from .space import words
from .told import roof

#: So many points the table at the end shows, the best first.
SHOWN = 12
_RANK = ("chosen", "front", "fits", "misses")


def advice(found: Advised) -> Group:
    """The machine, its roofline, and what is tried and why."""
    return Group(
        Text(_machine(found.facts.hardware)),
        _roofline(found.facts.calls),
        Text(""),
        _rules(found),
    )


def _machine(here: Hardware) -> str:
    gain = "" if here.int8_gain is None else f", INT8 {here.int8_gain:.2f} times as fast"
    return (
        f"{here.target} on {here.cores} cores: {here.flops / 1e9:.0f} GFLOP/s in float32{gain}, "
        f"{here.bytes_per_s / 1e9:.1f} GB/s of weights"
    )


def _roofline(calls: Sequence[Call]) -> Table:
    heads = ("call", "GFLOP", "MB moved", "FLOP/byte", "multiplying", "reading", "waits for")
    table = _grid(heads)
    for line in map(roof, calls):
        table.add_row(
            f"{line.phase} {line.shape}".strip(),
            figures.number(line.gflop, 3),
            figures.number(line.megabytes, 3),
            figures.number(line.intensity, 3),
            figures.milliseconds(line.compute_ms),
            figures.milliseconds(line.memory_ms),
            line.bound,
        )
    return table


def _rules(found: Advised) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("what", "tried", "because"):
        table.add_column(head)
    for each in found.advice:
        table.add_row(each.what, "yes" if each.tried else "no", Text(each.why))
    return table


def trial(number: int, result: Result | None, why: str) -> str:
    """One line of one trial that ended."""
    if result is None:
        return f"trial {number} lost: {why}"
    known = result.figures
    parts = [f"drop {known['drop']:.4f}"] if "drop" in known else []
    parts += [f"{known['speedup']:.2f} times"] if "speedup" in known else []
    parts += [f"{known['size_mb']:.1f} MB"] if "size_mb" in known else []
    end = "fits" if result.fits else f"stopped, {result.stopped}" if result.stopped else "misses"
    told = ", ".join(parts)
    return f"{words(result.settings)}: {told}; {end} ({result.seconds:.0f} s)"


def end(found: Tuning) -> Group:
    """The points, the best first, and what was taken."""
    heads = ("point", "drop", "speed", "latency", "size", "standing")
    table = _grid(heads, left=("point", "standing"))
    known = [point for point in found.points if point.standing in _RANK]
    for point in sorted(known, key=_order)[:SHOWN]:
        table.add_row(*_row(point))
    taken = f"taken: {found.chosen}" if found.chosen else f"not reached: {found.chosen_reason}"
    tuned = f"tuned on {found.tuned_on}"
    stopped = sum(point.standing == "stopped" for point in found.points)
    counts = f"{len(found.points)} trials, {stopped} stopped early, {len(found.lost)} lost"
    return Group(table, Text(counts), Text(tuned), Text(found.verified_on), Text(taken))


def _order(point: Point) -> tuple[int, float]:
    return _RANK.index(point.standing), point.drop or 0.0


def _row(point: Point) -> tuple[str, ...]:
    return (
        point.name,
        figures.number(point.drop, 3),
        figures.ratio(point.speedup),
        figures.milliseconds(point.latency_ms),
        figures.size((point.size_mb or 0) * 1e6),
        point.standing,
    )


def _grid(heads: Sequence[str], left: Sequence[str] = ("call", "waits for")) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right")
    return table
