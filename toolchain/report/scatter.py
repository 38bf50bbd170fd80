"""Points in a plane as inline SVG in percentages, with lines at limits and a tooltip each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .markup import Html, html, tag

#: Steps between lines, of each power of ten.
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Spot(NamedTuple):
    """A point: where, how large (0 to 1), its tooltip, and a class for its colour."""

    x: float
    y: float
    size: float
    title: str
    tone: str


class Axis(NamedTuple):
    """A direction: what it is called, and a value that must not be passed, None where none is."""

    label: str
    limit: float | None = None


def scatter(spots: Sequence[Spot], across: Axis, up: Axis, description: str) -> Html:
    """Points with round values at both axes; a limit is a dashed line."""
    xs = _ticks([spot.x for spot in spots], across.limit)
    ys = _ticks([spot.y for spot in spots], up.limit)
    lines = [_level(_place(tick, ys), "grid") for tick in ys]
    lines += [_upright(_place(tick, xs), "grid") for tick in xs]
    lines += [_level(_place(up.limit, ys), "limit")] if up.limit is not None else []
    lines += [_upright(_place(across.limit, xs), "limit")] if across.limit is not None else []
    found = sorted(spots, key=lambda spot: -spot.size)
    drawing = tag(
        "svg", lines, [_spot(s, xs, ys) for s in found], role="img", aria_label=description
    )
    left = [_label(tick, f"top:{100 - _place(tick, ys):.2f}%") for tick in ys]
    below = [_label(tick, f"left:{_place(tick, xs):.2f}%") for tick in xs]
    return tag(
        "div",
        tag("p", up.label, class_="sub"),
        tag("div", tag("div", left, class_="up"), drawing, class_="plane"),
        tag("div", below, class_="across"),
        tag("p", across.label, class_="sub end"),
        class_="scatter",
    )


def _spot(spot: Spot, xs: Sequence[float], ys: Sequence[float]) -> Html:
    x, y = f"{_place(spot.x, xs):.2f}%", f"{100 - _place(spot.y, ys):.2f}%"
    circle = tag("circle", cx=x, cy=y, r=f"{4 + 9 * math.sqrt(spot.size):.1f}")
    return tag("g", tag("title", spot.title), circle, class_=spot.tone)


def _level(place: float, kind: str) -> Html:
    y = f"{100 - place:.2f}%"
    return tag("line", x1="0", x2="100%", y1=y, y2=y, class_=kind)


def _upright(place: float, kind: str) -> Html:
    x = f"{place:.2f}%"
    return tag("line", x1=x, x2=x, y1="0", y2="100%", class_=kind)


def _label(tick: float, style: str) -> Html:
    return html(tag("span", f"{tick:g}", style=style))


def _ticks(values: Sequence[float], limit: float | None) -> list[float]:
    """Round values around all points and the limit, with a margin."""
    shown = [*values, *([] if limit is None else [limit])]
    least, most = min(shown), max(shown)
    reach = max(most - least, abs(most) * 0.1, 1e-9)
    power = 10.0 ** math.floor(math.log10(reach / 4))
    step = next(power * each for each in _STEPS if reach / (power * each) <= 5)
    first, last = math.floor(least / step), math.ceil(most / step)
    first -= 1 if least - first * step < 0.05 * reach and least > 0 else 0
    last += 1 if last * step - most < 0.05 * reach else 0
    return [round(step * place, 12) for place in range(first, last + 1)]


def _place(value: float, ticks: Sequence[float]) -> float:
    return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])
