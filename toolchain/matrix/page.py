"""matrix.html: a line a cell, in the style of a release's report, and each links to its own."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from ..report import figures
from ..report.html import document
from ..report.markup import Column, Html, Notes, html, name, pill, section, table, tag

_TONES = {
    "pass": "good",
    "fail": "bad",
    "error": "bad",
    "incomplete": "warn",
    "pending": "plain",
}
_WORDS = {
    "pass": "Every cell is fit to ship",
    "fail": "Not every cell is fit to ship",
    "error": "Not every cell could be made",
    "incomplete": "Not every cell is proven here",
    "pending": "Not every cell is made yet",
}
_WRITTEN: dict[str, Callable[[float], str]] = {
    "score": figures.score,
    "of float": figures.percent,
    "cosine": figures.near_one,
    "int8 share": figures.percent,
    "speedup": figures.ratio,
    "bytes": figures.size,
}
_COLUMNS = (
    Column("model"),
    Column("precision"),
    Column("target"),
    Column("verdict"),
    *(Column(label.replace("bytes", "size"), figures=True) for label in _WRITTEN),
    Column("seconds", figures=True),
    Column("made", figures=True),
)
_SHARED = (
    "Jobs ran side by side: seconds and speedups are of a machine that others used too. "
    "`llmdeploy verify` in a cell's workspace times it alone."
)


def page(matrix: Mapping[str, Any]) -> str:
    """The matrix as one page without network or scripts; everything of a name is escaped."""
    cells, verdict = matrix["cells"], matrix["verdict"]
    tally = {word: sum(cell["verdict"] == word for cell in cells) for word in _TONES}
    said = ", ".join(f"{count} {word}" for word, count in tally.items() if count)
    tone = _TONES[verdict]
    header = tag(
        "header",
        tag("p", pill(verdict, tone), " ", tag("time", matrix["created"]), class_="top"),
        tag("h1", f"A matrix of {len(cells)} releases"),
        tag("p", tag("strong", _WORDS[verdict]), f": {said}.", class_=f"verdict {tone}"),
    )
    notes = Notes()
    grid = table(_COLUMNS, [_row(cell, notes) for cell in cells], notes)
    lead = _SHARED if matrix["side_by_side"] else None
    body = html((header, section("cells", "Cells", grid, lead=lead), _why(cells), _machine(matrix)))
    return document(f"{verdict}: {len(cells)} releases", body)


def _row(cell: Mapping[str, Any], notes: Notes) -> list[Html]:
    verdict = pill(cell["verdict"], _TONES[cell["verdict"]])
    reasons = cell["reasons"]
    measured = [
        notes.mark(reasons.get(label))
        if cell["figures"][label] is None
        else html(write(cell["figures"][label]))
        for label, write in _WRITTEN.items()
    ]
    return [
        _linked(cell["model"], cell["page"]),
        html(cell["precision"]),
        name(cell["target"]),
        verdict,
        *measured,
        html(figures.seconds(cell["seconds"])),
        html(f"{cell['made']} of {cell['stages']}" if cell["stages"] else figures.NONE),
    ]


def _linked(text: str, target: str) -> Html:
    """A name that leads to a file beside this page, and nowhere else."""
    return tag("a", name(text), href=quote(target)) if target else name(text)


def _why(cells: list[Mapping[str, Any]]) -> Html:
    """What each cell that does not pass says of itself."""
    lines = [
        tag("li", pill(cell["verdict"], _TONES[cell["verdict"]]), " ", tag("strong", _where(cell)))
        + tag("p", why, class_="why")
        for cell in cells
        for why in (*cell["failing"], *([cell["error"]] if cell["error"] else []))
    ]
    if not lines:
        return Html("")
    return section("why", "Why not", tag("ul", [Html(line) for line in lines], class_="failing"))


def _where(cell: Mapping[str, Any]) -> Html:
    return name(f"{cell['model']} {cell['precision']} {cell['target']}")


def _machine(matrix: Mapping[str, Any]) -> Html:
    here = matrix["environment"]
    words = f"{here['cpu']}, {here['cores']} cores, {figures.size(here['memory_bytes'])}"
    return section("machine", "Where", tag("p", f"{words}; jobs: {matrix['jobs']}."))
