"""report.html: one page without network, without scripts, everything of a name escaped."""

from functools import cache
from importlib.resources import files
from string import Template

from . import built, compressed, figures, made, proved, timed, tuned
from .markup import Html, html, name, pill, tag
from .record import Report

_WORDS = {
    "pass": "Fit to ship",
    "fail": "Not fit to ship",
    "incomplete": "Not proven here",
}
#: The page's parts after the verdict, in order: the title in the contents is that of the section.
_PARTS = (
    proved.gates,
    tuned.tuning,
    made.lineage,
    made.stages,
    proved.scores,
    proved.parity,
    compressed.compression,
    built.precision,
    built.cache,
    timed.latency,
    made.sizes,
    built.passes,
    built.calibration,
    built.engines,
    proved.bundles,
    made.environment,
)


def page(report: Report) -> str:
    """The report as one self-contained page, light or dark as the reader's system is."""
    parts = [(part.__name__, part(report)) for part in _PARTS]
    there = [title for title, part in parts if part]
    body = html((_verdict(report), _contents(there), [part for _, part in parts]))
    return document(f"{report.verdict}: {report.model.checkpoint}", body)


def document(title: str, body: Html) -> str:
    """A whole page of this title and body, which stand escaped in it."""
    return _template().substitute(title=html(title), style=_file("page.css"), body=body)


def _file(name: str) -> str:
    return files("llmdeploy.toolchain.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    return Template(_file("page.html"))


def _verdict(report: Report) -> Html:
    tone = proved.TONES[report.verdict]
    model = report.model
    size = f"{figures.count(model.parameters)} parameters" if model.parameters else None
    facts = [
        tag("span", fact) for fact in (model.architecture, model.task, size, model.revision) if fact
    ]
    when = tag("time", f"{report.created:%Y-%m-%d %H:%M} UTC", datetime=report.created.isoformat())
    return tag(
        "header",
        tag("p", pill(report.verdict, tone), " ", when, class_="top"),
        tag("h1", name(model.checkpoint)),
        tag("p", facts, class_="facts"),
        tag(
            "p",
            tag("strong", _WORDS[report.verdict]),
            f": {_tally(report)}.",
            class_=f"verdict {tone}",
        ),
        _failing(report),
        _tiles(report),
    )


def _tally(report: Report) -> str:
    counts = {
        "pass": sum(gate.status == "pass" for gate in report.gates),
        "fail": sum(gate.status == "fail" for gate in report.gates),
        "not-executed": sum(gate.status == "not-executed" for gate in report.gates),
    }
    words = {"pass": "passed", "fail": "failed", "not-executed": "not executed here"}
    said = [f"{number} {words[status]}" for status, number in counts.items() if number]
    noun = "gate" if len(report.gates) == 1 else "gates"
    return f"of {len(report.gates)} {noun} {', '.join(said)}" if said else "no gate was set"


def _failing(report: Report) -> Html | None:
    """What did not hold, with the command that digs further, before all else."""
    lines = [
        tag("li", pill(gate.status, proved.TONES[gate.status]), " ", tag("strong", gate.name))
        + proved.explained(gate.reason, gate.mend)
        for gate in report.gates
        if gate.status == "fail" or (gate.status == "not-executed" and not gate.allowed)
    ]
    return tag("ul", [Html(line) for line in lines], class_="failing") if lines else None


def _tiles(report: Report) -> Html | None:
    found = [
        tile
        for tile in (_score(report), _share(report), _speed(report), _size(report), _cosine(report))
        if tile
    ]
    return tag("div", found, class_="tiles") if found else None


def _tile(label: str, figure: str, words: str) -> Html:
    return tag("div", tag("span", label), tag("b", figure), tag("small", words))


def _score(report: Report) -> Html | None:
    scored = [score for score in report.scores if score.value is not None]
    if not scored:
        return None
    last = scored[-1]
    share = "" if last.against_float is None else f"{100 * last.against_float:.2f} % of float"
    return _tile(last.metric, figures.score(last.value), f"{last.name}, {share}".strip(", "))


def _share(report: Report) -> Html | None:
    found = report.quantization
    if found is None:
        return None
    names = {"w8": "INT8 weights", "int4": "INT4 weights", "fp8": "FP8", "w8a16": "INT8 by INT16"}
    name = names.get(found.precision, "INT8")
    return _tile(name, figures.percent(found.int8_share), "of the multiply-adds")


def _speed(report: Report) -> Html | None:
    ratios = [line.ratio for line in report.latency if line.ratio is not None and line.ratio != 1]
    if not ratios:
        return None
    low, high = figures.ratio(min(ratios)), figures.ratio(max(ratios))
    return _tile(
        "speed",
        low if low == high else f"{low[:-1]}\N{EN DASH}{high}",
        "float's latency over ours, by shape",
    )


def _size(report: Report) -> Html | None:
    before = next((stage.size_bytes for stage in report.stages if stage.name == "export"), 0)
    size = next((engine.size_bytes for engine in report.engines if engine.executed), 0)
    if not before or not size:
        return None
    words = f"{figures.percent(size / before)} of the export's {figures.size(before)}"
    return _tile("engine size", figures.size(size), words)


def _cosine(report: Report) -> Html | None:
    means = [
        (output.cosine_mean, line.name)
        for line in report.parity
        for output in line.outputs
        if output.cosine_mean is not None
    ]
    return (
        _tile("worst mean cosine", figures.near_one(min(means)[0]), min(means)[1])
        if means
        else None
    )


def _contents(names: list[str]) -> Html:
    links = [tag("a", part, href=f"#{part}") for part in names]
    return tag("nav", links, aria_label="contents")
