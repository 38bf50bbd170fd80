"""How fast an engine is and what it holds, as parts of the page: latency, memory, cold start."""

from itertools import groupby

from . import figures
from .charts import Bar, Spread, bars, spreads
from .markup import Html, section, tag
from .proof import Footprint, Latency
from .record import Report

Key = tuple[str, int, int]


def latency(report: Report) -> Html:
    """Milliseconds by shape: how the calls of each engine are spread."""
    lines = sorted(report.latency, key=_key)
    charts = [_shape(key, list(each)) for key, each in groupby(lines, _key)]
    threads = sorted({one.threads for one in report.latency})
    lead = (
        f"Interleaved in one run on {' and '.join(map(str, threads))} threads. The line reaches "
        "from the fastest call to the slowest tenth, the box holds the middle six of ten, and its "
        "tick is the median. A ratio is float's median over this one's; a difference within noise "
        "is not called one."
    )
    return section(
        "latency", "Latency", tag("div", charts, class_="pair") if charts else None, lead=lead
    )


def _key(line: Latency) -> Key:
    return line.name.partition(" ")[2], line.batch, line.sequence


def _shape(key: Key, lines: list[Latency]) -> Html:
    phase, batch, sequence = key
    title = f"{phase} batch {batch} \N{MULTIPLICATION SIGN} sequence {sequence}".strip()
    known = [line for line in lines if line.median_ms is not None]
    whole = all(line.deciles for line in known)
    chart = spreads([_spread(line) for line in known]) if whole else bars(_bars(known), title)
    absent = [
        tag("p", tag("strong", line.name), f": {line.median_ms_reason}", class_="sub")
        for line in lines
        if line.median_ms is None
    ]
    return tag("figure", tag("figcaption", title), chart if known else None, absent)


def _spread(line: Latency) -> Spread:
    low, high = figures.milliseconds(line.low_ms), figures.milliseconds(line.high_ms)
    tip = (
        f"{line.runs} calls; median {figures.milliseconds(line.median_ms)}, "
        f"95 % of it {low} to {high}; p90 {figures.milliseconds(line.p90_ms)}, "
        f"p99 {figures.milliseconds(line.p99_ms)}"
    )
    return Spread(_name(line), line.deciles, _text(line), tip, _tone(line), _ratio(line))


def _bars(lines: list[Latency]) -> list[Bar]:
    return [
        Bar(_name(line), line.median_ms or 0.0, _text(line), None, _tone(line), _ratio(line))
        for line in lines
    ]


def _name(line: Latency) -> str:
    return line.name.partition(" ")[0]


def _text(line: Latency) -> str:
    return figures.milliseconds(line.median_ms)


def _ratio(line: Latency) -> str:
    noise = line.call == "within noise" and line.ratio not in (None, 1)
    return "within noise" if noise else figures.ratio(line.ratio)


def _tone(line: Latency) -> str:
    faster = line.ratio is not None and line.ratio > 1 and line.call != "within noise"
    return "good" if faster else "plain"


def footprints(report: Report) -> list[Html]:
    """Memory and cold start of each engine, in a process that only runs it."""
    found = report.footprints
    if not found:
        return []
    memory = [
        Bar(one.name, one.peak_bytes, figures.size(one.peak_bytes), one.before_bytes, _engine(one))
        for one in found
    ]
    cold = [
        Bar(one.name, _cold(one), figures.milliseconds(_cold(one)), one.open_ms, _engine(one))
        for one in found
    ]
    said = "Resident memory of an engine alone, its tick what the process held before"
    start = "From opening an engine to its first answer, its tick when it was open"
    return [
        tag("figure", tag("figcaption", title), bars(items, title))
        for title, items in ((said, memory), (start, cold))
    ]


def _engine(one: Footprint) -> str:
    return "accent" if one.name.startswith("engine/") else "plain"


def _cold(one: Footprint) -> float:
    return (one.open_ms or 0.0) + (one.first_ms or 0.0)
