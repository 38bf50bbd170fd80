"""Charts as inline SVG in percentages: they follow the page's width, their text keeps its size."""

from collections.abc import Sequence
from typing import NamedTuple

from .markup import Html, html, tag


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
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1e9) if (most - least) / step <= 5)
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


def legend(entries: Sequence[tuple[str, str]]) -> Html:
    """What the colours stand for: (class, words)."""
    marks = [tag("span", tag("i", class_=tone), words) for tone, words in entries]
    return html(tag("p", marks, class_="legend"))
