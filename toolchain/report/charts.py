"""Charts as inline SVG in percentages: they follow the page's width, their text keeps its size."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from .markup import Html, html, tag

#: Steps between lines of a plot; above them there is one line.
_STEPS = tuple(base * 10.0**power for power in range(-4, 3) for base in (1, 2, 5))


class Bar(NamedTuple):
    """A named length; `mark` is a second value drawn as a tick, `tone` a class for its colour.

    `ratio` is a second figure behind the first.
    """

    label: str
    value: float
    text: str
    mark: float | None = None
    tone: str = "plain"
    ratio: str = ""


def bars(items: Sequence[Bar], description: str) -> Html:
    """Horizontal bars on one scale, the figure written behind each."""
    most = max((max(item.value, item.mark or 0) for item in items), default=0) or 1
    rows = [_bar(item, most) for item in items]
    return tag("div", rows, class_="bars", role="group", aria_label=description)


def _bar(item: Bar, most: float) -> Html:
    shapes = [tag("rect", width=f"{100 * item.value / most:.2f}%", height="100%", rx=3)]
    if item.mark is not None:
        at = f"{100 * item.mark / most:.2f}%"
        shapes.append(tag("line", x1=at, x2=at, y1="0", y2="100%"))
    drawing = tag("svg", shapes, class_=f"bar {item.tone}", aria_hidden="true")
    return tag(
        "div",
        tag("span", item.label, class_="name"),
        drawing,
        tag("span", item.text, class_="text"),
        tag("span", item.ratio, class_="ratio"),
    )


class Spread(NamedTuple):
    """A named distribution by its eleven deciles, from least to most; the rest as of a `Bar`."""

    label: str
    deciles: Sequence[float]
    text: str
    title: str
    tone: str = "plain"
    ratio: str = ""


def spreads(items: Sequence[Spread]) -> Html:
    """Distributions on one scale that starts at 0: a line, a box, and a tick at the median."""
    most = max((item.deciles[9] for item in items), default=0) or 1
    return tag("div", [_spread(item, most) for item in items], class_="bars")


def _spread(item: Spread, most: float) -> Html:
    def at(decile: int) -> str:
        return f"{100 * item.deciles[decile] / most:.2f}%"

    width = f"{100 * (item.deciles[8] - item.deciles[2]) / most:.2f}%"
    shapes = (
        tag("title", item.title),
        tag("line", x1=at(0), x2=at(9), y1="50%", y2="50%", class_="reach"),
        tag("rect", x=at(2), width=width, y="12%", height="76%", rx=3),
        tag("line", x1=at(5), x2=at(5), y1="0", y2="100%"),
    )
    return tag(
        "div",
        tag("span", item.label, class_="name"),
        tag("svg", shapes, class_=f"bar spread {item.tone}", role="img", aria_label=item.title),
        tag("span", item.text, class_="text"),
        tag("span", item.ratio, class_="ratio"),
    )


def histogram(counts: Sequence[int], end: float | None, description: str) -> Html:
    """Counts on a log scale from left to right; `end` (0 to 1) draws a line there."""
    most = math.log1p(max(counts, default=0)) or 1.0
    width = 100 / max(len(counts), 1)
    shapes: list[Html] = []
    for index, count in enumerate(counts):
        height = 100 * math.log1p(count) / most
        place = {"x": f"{index * width:.2f}%", "width": f"{0.86 * width:.2f}%"}
        shapes.append(tag("rect", **place, y=f"{100 - height:.1f}%", height=f"{height:.1f}%"))
    if end is not None:
        x = f"{100 * end:.2f}%"
        shapes.append(tag("line", x1=x, x2=x, y1="-6%", y2="100%"))
    return tag("svg", shapes, class_="histogram", role="img", aria_label=description)


def gauge(share: float, tone: str = "plain") -> Html:
    """A small bar of a share between 0 and 1, for a cell of a table."""
    width = f"{100 * min(max(share, 0), 1):.2f}%"
    return tag(
        "svg",
        tag("rect", width=width, height="100%", rx=2),
        class_=f"gauge {tone}",
        aria_hidden="true",
    )


class Dot(NamedTuple):
    """A value in a row of values; its tooltip, and a class for its colour and shape."""

    value: float
    title: str
    tone: str


def dots(items: Sequence[Dot], unit: str, description: str) -> Html:
    """Values in order from left to right, on stems, with lines at round values."""
    low, high, step = _scale([item.value for item in items])
    ticks = [low + step * index for index in range(round((high - low) / step) + 1)]
    lines = [_line(_height(tick, low, high)) for tick in ticks]
    points = [_dot(item, index, len(items), low, high) for index, item in enumerate(items)]
    drawing = tag("svg", lines, points, role="img", aria_label=description)
    labels = [
        tag("span", f"{tick:g} {unit}", style=f"top:{_height(tick, low, high):.2f}%")
        for tick in ticks
    ]
    return tag("div", tag("div", labels, class_="axis"), drawing, class_="dots")


def _scale(values: Sequence[float]) -> tuple[float, float, float]:
    """Round bounds around the values, and a round step between lines."""
    least, most = min(values), max(values)
    step = next(step for step in (*_STEPS, 1e9) if (most - least) / step <= 5)
    low = step * (least // step)
    return low, max(step * -(-most // step), low + step), step


def _height(value: float, low: float, high: float) -> float:
    return 100 * (high - value) / (high - low)


def _line(y: float) -> Html:
    return tag("line", x1="0", x2="100%", y1=f"{y:.2f}%", y2=f"{y:.2f}%", class_="grid")


def _dot(item: Dot, index: int, count: int, low: float, high: float) -> Html:
    x, y = f"{100 * (index + 0.5) / count:.2f}%", f"{_height(item.value, low, high):.2f}%"
    stem = tag("line", x1=x, x2=x, y1=y, y2="100%", class_="stem")
    point = tag("circle", cx=x, cy=y, r=4)
    return tag("g", tag("title", item.title), stem, point, class_=item.tone)


class Place(NamedTuple):
    """A point at x, 0 to 100 from left to right, and y; its tooltip, and a class for its colour."""

    x: float
    y: float
    title: str
    tone: str


def places(items: Sequence[Place], unit: str, description: str) -> Html:
    """Points joined from left to right, with lines at round values of y."""
    low, high, step = _scale([item.y for item in items])
    ticks = [low + step * index for index in range(round((high - low) / step) + 1)]
    ordered = sorted(items)
    joined = [_join(one, two, low, high) for one, two in pairwise(ordered)]
    points = [_place(item, low, high) for item in ordered]
    lines = [_line(_height(tick, low, high)) for tick in ticks]
    drawing = tag("svg", lines, joined, points, role="img", aria_label=description)
    labels = [
        tag("span", f"{round(tick, 6):g} {unit}", style=f"top:{_height(tick, low, high):.2f}%")
        for tick in ticks
    ]
    return tag("div", tag("div", labels, class_="axis"), drawing, class_="dots")


def _join(one: Place, two: Place, low: float, high: float) -> Html:
    ends = {"x1": one.x, "x2": two.x}
    ends |= {"y1": _height(one.y, low, high), "y2": _height(two.y, low, high)}
    return tag("line", **{key: f"{at:.2f}%" for key, at in ends.items()}, class_="stem int8")


def _place(item: Place, low: float, high: float) -> Html:
    x, y = f"{item.x:.2f}%", f"{_height(item.y, low, high):.2f}%"
    return tag("g", tag("title", item.title), tag("circle", cx=x, cy=y, r=4), class_=item.tone)


def legend(entries: Sequence[tuple[str, str]]) -> Html:
    """What the colours stand for: (class, words)."""
    marks = [tag("span", tag("i", class_=tone), words) for tone, words in entries]
    return html(tag("p", marks, class_="legend"))
