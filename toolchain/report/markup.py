"""HTML put together from values: what is not markup already is escaped, always."""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import NamedTuple

#: After these a long name may go on in the next line; an escaped character is not torn.
_BREAKS = re.compile(r"([_/:-](?=[^\s<])|\.(?=[A-Za-z]))")
_COMMAND = re.compile(r"(llmdeploy|pip|polygraphy)( [^\s,`]+)+")


class Html(str):
    """Text that is markup and is not escaped again."""

    __slots__ = ()


Content = object


def html(content: Content) -> Html:
    """Markup of anything: `Html` as it is, None as nothing, sequences joined, the rest escaped."""
    if isinstance(content, Html):
        return content
    if content is None:
        return Html("")
    if isinstance(content, list | tuple):
        return Html("".join(html(one) for one in content))
    return Html(escape(str(content)))


def tag(name: str, *content: Content, **attributes: object) -> Html:
    """An element; `class_` and `data_label` become `class` and `data-label`, None is left out."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{pairs}>{html(content)}</{name}>")


class Notes:
    """Footnotes of a table: each reason once, marked where its figure would stand."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def mark(self, reason: str | None) -> Html:
        """What stands where there is no figure: a dash, and the mark of its reason."""
        if not reason:
            return tag("span", "\N{EM DASH}", class_="none")
        index = len(self._reasons)
        letter = self._reasons.setdefault(
            reason, chr(ord("a") + index) if index < 26 else str(index)
        )
        return tag("span", "\N{EM DASH}", tag("sup", letter), class_="none", title=reason)

    def html(self) -> Html:
        """The list of reasons; nothing when every figure is there."""
        if not self._reasons:
            return Html("")
        lines = [tag("li", tag("sup", mark), " ", why) for why, mark in self._reasons.items()]
        return tag("ul", lines, class_="notes")


class Column(NamedTuple):
    """A column's heading; figures stand to the right."""

    label: str
    figures: bool = False


def table(
    columns: Iterable[Column], rows: Iterable[Iterable[Content]], notes: Notes | None = None
) -> Html:
    """A table that becomes a list of cards on a phone, and the footnotes below it."""
    columns = tuple(columns)
    heads = [tag("th", one.label, scope="col", class_=_side(one)) for one in columns]
    body = [_row(columns, row) for row in rows]
    grid = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body))
    return html((tag("div", grid, class_="scroll"), notes.html() if notes else None))


def _row(columns: tuple[Column, ...], row: Iterable[Content]) -> Html:
    cells = [
        tag("td", tag("div", cell), class_=_side(column), data_label=column.label)
        for column, cell in zip(columns, row, strict=True)
    ]
    return tag("tr", cells)


def _side(column: Column) -> str | None:
    return "figure" if column.figures else None


def pill(text: str, tone: str) -> Html:
    """A word in a coloured capsule; `tone` is good, bad, warn, plain or accent."""
    return tag("span", text, class_=f"pill {tone}")


def section(identifier: str, title: str, *content: Content, lead: Content = None) -> Html:
    """A headed part of the page; nothing when it has no content."""
    if not any(html(one) for one in content):
        return Html("")
    intro = tag("p", lead, class_="lead") if lead else None
    return tag("section", tag("h2", title), intro, *content, id=identifier)


def facts(pairs: Mapping[str, Content]) -> Html:
    """Names and values, one below the other."""
    lines = [
        tag("div", tag("dt", key), tag("dd", value))
        for key, value in pairs.items()
        if value not in (None, "")
    ]
    return tag("dl", lines)


def command(text: str) -> Html:
    """A command to copy: one click takes the whole of it."""
    return tag("code", text, class_="command")


def name(text: str) -> Html:
    """A long name that may break after its separators."""
    return Html(_BREAKS.sub(r"\1<wbr>", escape(text)))


def code(text: str) -> Html:
    """A name of a graph or a path, in the type of code."""
    return tag("code", name(text))


def mend(text: str) -> Html:
    """A mend: what stands between backticks, or the whole when it is one, as a command."""
    if _COMMAND.fullmatch(text):
        return command(text)
    parts = text.split("`")
    return html([command(part) if index % 2 else part for index, part in enumerate(parts)])


def digest(text: str) -> Html:
    """A digest's first characters, the whole of it on hover."""
    return tag("code", text.removeprefix("sha256:")[:12], title=text, class_="digest")
