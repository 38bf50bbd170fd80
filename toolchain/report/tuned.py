"""What a search measured, as a part of the page: the front, the rules that set out, every trial."""

from collections.abc import Sequence

from . import figures
from .markup import Column, Html, Notes, facts, html, name, pill, section, table, tag
from .record import Report
from .scatter import Axis, Spot, scatter
from .tuning import Point, Tuning

TONES = {"chosen": "good", "front": "accent", "fits": "plain", "misses": "warn", "stopped": "bad"}
_WORDS = {
    "chosen": "taken",
    "front": "none is better in all",
    "fits": "holds its limits",
    "misses": "misses a limit",
    "stopped": "stopped early",
}


def tuning(report: Report) -> Html:
    """The search that a release comes from; nothing where there was none."""
    return part(report.tuning) if report.tuning else Html("")


def part(found: Tuning) -> Html:
    """The search as a section."""
    lead = (
        f"Scored on {found.tuned_on}. {found.verified_on} Speed is the least over all shapes, in "
        "times float's in the same run; a circle's area is the other of size and speed."
    )
    return section(
        "tuning",
        "Tuning",
        _charts(found),
        tag("h3", "Points"),
        _points(found),
        tag("h3", "Why these were tried"),
        _advice(found),
        tag("h3", "What the calls wait for, by roofline"),
        _roof(found),
        _facts(found),
        lead=lead,
    )


def _charts(found: Tuning) -> Html | None:
    """Score against speed, and against size; a circle a trial that has both figures."""
    known = [p for p in found.points if p.drop is not None and p.speedup is not None]
    if not known:
        return None
    drop = found.limits.get("max_drop")
    up = Axis("score lost, %", None if drop is None else 100 * drop)
    fast = Axis("times as fast as float", found.limits.get("min_speedup"))
    small = Axis("MB", found.limits.get("max_size_mb"))
    most = max(point.size_mb or 0.0 for point in known) or 1.0
    quick = max(point.speedup or 0.0 for point in known) or 1.0
    charts = (
        scatter(
            [_spot(p, p.speedup, (p.size_mb or 0) / most) for p in known],
            fast,
            up,
            "score lost against speed, a circle a trial, its area the size",
        ),
        scatter(
            [_spot(p, p.size_mb, (p.speedup or 0) / quick) for p in known],
            small,
            up,
            "score lost against size, a circle a trial, its area the speed",
        ),
    )
    there = {point.standing for point in known}
    marks = [
        tag("span", tag("i", class_=TONES[word]), _WORDS[word]) for word in TONES if word in there
    ]
    return html((tag("div", charts, class_="pair"), tag("p", marks, class_="legend")))


def _spot(point: Point, across: float | None, area: float) -> Spot:
    title = f"{point.name}: {_told(point)}"
    return Spot(across or 0.0, 100 * (point.drop or 0.0), area, title, TONES[point.standing])


def _told(point: Point) -> str:
    parts = (
        f"drop {figures.number(point.drop, 3)}",
        f"{figures.ratio(point.speedup)} float's speed",
        f"{figures.number(point.size_mb, 4)} MB" if point.size_mb else "",
        point.reason,
    )
    return ", ".join(part for part in parts if part)


def _points(found: Tuning) -> Html:
    columns = (
        Column("point"),
        Column("drop", True),
        Column("score", True),
        Column("speed", True),
        Column("latency", True),
        Column("size", True),
        Column("seconds", True),
    )
    order = list(TONES)
    points = sorted(found.points, key=lambda each: (order.index(each.standing), each.drop or 9.0))
    notes = Notes()
    return table(columns, [_row(point, notes) for point in points], notes)


def _row(point: Point, notes: Notes) -> tuple[object, ...]:
    def shown(value: float | None, text: str) -> object:
        return text if value is not None else notes.mark(point.reason or "not measured")

    under = f": {point.reason}" if point.reason else ""
    mark = pill(_WORDS[point.standing], TONES[point.standing])
    return (
        (tag("strong", name(point.name)), tag("div", mark, under, class_="sub")),
        shown(point.drop, figures.percent(point.drop)),
        shown(point.score, figures.score(point.score)),
        shown(point.speedup, figures.ratio(point.speedup)),
        shown(point.latency_ms, figures.milliseconds(point.latency_ms)),
        shown(point.size_mb, figures.size((point.size_mb or 0) * 1e6)),
        figures.seconds(point.seconds),
    )


def _advice(found: Tuning) -> Html:
    rows = [
        (tag("strong", each.what), pill("tried" if each.tried else "left out", _tone(each.tried)),
         each.why)
        for each in found.advice
    ]  # fmt: skip
    return table((Column("what"), Column("is"), Column("because")), rows)


def _tone(tried: bool) -> str:
    return "accent" if tried else "plain"


def _roof(found: Tuning) -> Html:
    columns = (
        Column("call"),
        Column("GFLOP", True),
        Column("MB moved", True),
        Column("FLOP a byte", True),
        Column("multiplying", True),
        Column("reading", True),
        Column("waits for"),
    )
    rows: Sequence[tuple[object, ...]] = [
        (
            f"{line.phase} {line.shape}".strip(),
            figures.number(line.gflop, 3),
            figures.number(line.megabytes, 3),
            figures.number(line.intensity, 3),
            figures.milliseconds(line.compute_ms),
            figures.milliseconds(line.memory_ms),
            line.bound,
        )
        for line in found.roofline
    ]
    return table(columns, rows)


def _facts(found: Tuning) -> Html:
    shown = {
        key.replace("_", " "): figures.plain(key, each) for key, each in found.hardware.items()
    }
    lost = f"{len(found.lost)}: {'; '.join(dict.fromkeys(found.lost))}" if found.lost else ""
    return facts(
        {
            **shown,
            "trials lost": lost,
            "jobs": found.jobs,
            "searched for": figures.seconds(found.seconds),
            "seed": found.seed,
            "made again by": found.configuration,
        }
    )
