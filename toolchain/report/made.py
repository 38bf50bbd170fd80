"""How a release was made, as parts of the page: lineage, stages, passes, ranges, engines."""

import json
from collections.abc import Sequence
from itertools import groupby

from . import figures
from .charts import Bar, bars, gauge
from .making import Calibration, Engine, Failure, Stage, Step
from .markup import Column, Html, Notes, digest, facts, html, name, pill, section, table, tag
from .record import Report

#: Facts longer than this many characters are folded away.
_SHORT = 44


def lineage(report: Report) -> Html:
    """From the checkpoint through each stage to what ships, with digests."""
    model = report.model
    links = [_link("checkpoint", model.digest, model.checkpoint)]
    made = [stage for stage in report.stages if not stage.name.startswith("bundle/")]
    for _, stages_ in groupby(made, _rank):
        links.append(html([_link(stage.name, stage.digest, _fresh(stage)) for stage in stages_]))
    packed = [_link(f"{one.kind} bundle", one.sha256, one.path) for one in report.bundles]
    links += [html(packed)] if packed else []
    chain = tag("ol", [tag("li", link) for link in links], class_="chain")
    return section("lineage", "Lineage", chain)


def _rank(stage: Stage) -> str:
    """What stands side by side: engines come from one graph, not from each other."""
    return "engines" if "/" in stage.name else stage.name


def _link(title: str, sha256: str, words: str) -> Html:
    return tag("div", tag("strong", title), digest(sha256), tag("span", name(words), class_="sub"))


def _fresh(stage: Stage) -> str:
    return "taken as it was" if stage.fresh else ""


def stages(report: Report) -> Html:
    """A line a stage: what it cost, how right it is, how fast."""
    columns = (
        Column("stage"),
        Column("seconds", True),
        Column("peak memory", True),
        Column("size", True),
        Column("parity", True),
        Column("score", True),
        Column("latency ratio", True),
    )
    notes = Notes()
    rows = [_stage(stage, notes) for stage in report.stages]
    lead = (
        "Parity is the mean cosine with what the stage came from; "
        "the latency ratio is float's time over this one's."
    )
    return section("stages", "Stages", table(columns, rows, notes) if rows else None, lead=lead)


def _stage(stage: Stage, notes: Notes) -> tuple[object, ...]:
    parity = stage.parity
    against = tag("div", f"against {parity.against}", class_="sub") if parity else None
    cosine = figures.near_one(parity.cosine_mean) if parity else notes.mark(stage.parity_reason)
    score = (
        figures.score(stage.score) if stage.score is not None else notes.mark(stage.score_reason)
    )
    faster = figures.ratio(stage.latency_ratio)
    return (
        (tag("strong", stage.name), tag("div", _fresh(stage), class_="sub")),
        figures.seconds(stage.seconds),
        figures.size(stage.peak_memory_bytes),
        figures.size(stage.size_bytes),
        (cosine, against),
        score,
        faster if stage.latency_ratio is not None else notes.mark(stage.latency_ratio_reason),
    )


def sizes(report: Report) -> Html:
    """Bytes on disk and peak memory of each stage, as bars."""
    charts = (
        _chart("Size on disk", [(one.name, one.size_bytes) for one in report.stages]),
        _chart("Peak memory", [(one.name, one.peak_memory_bytes) for one in report.stages]),
    )
    return section(
        "sizes", "Size and memory", tag("div", charts, class_="pair") if report.stages else None
    )


def _chart(title: str, lines: Sequence[tuple[str, int]]) -> Html:
    items = [Bar(one, value, figures.size(value), tone=_tone(one)) for one, value in lines]
    return tag("figure", tag("figcaption", title), bars(items, title))


def _tone(stage: str) -> str:
    return "accent" if stage.startswith("engine/") else "plain"


def passes(report: Report) -> Html:
    """What each pass did to the graph, and the error it caused."""
    columns = (
        Column("pass"),
        Column("nodes", True),
        Column("bytes", True),
        Column("applications"),
        Column("error", True),
        Column("seconds", True),
    )
    notes = Notes()
    rows = [_step(step, notes) for step in report.passes]
    lead = "The error is relative to the pass's input, measured on real samples."
    return section("passes", "Passes", table(columns, rows, notes) if rows else None, lead=lead)


def _step(step: Step, notes: Notes) -> tuple[object, ...]:
    error = step.max_error
    idle = None if step.modified else tag("div", "no change", class_="sub")
    return (
        (tag("strong", step.name), idle),
        _change(figures.count(step.nodes_before), figures.count(step.nodes_after)),
        _change(figures.size(step.bytes_before), figures.size(step.bytes_after)),
        _applications(step) or figures.NONE,
        notes.mark(step.max_error_reason) if error is None else figures.number(error, 2),
        figures.seconds(step.seconds),
    )


def _applications(step: Step) -> list[Html]:
    """The rules that applied, how many were proved on their own part, and those not kept."""
    rules = [f"{rule} {number}" for rule, number in step.applications.items() if number]
    shown = [tag("span", rule, class_="chip") for rule in rules]
    if step.proved:
        worst = f", worst error {figures.number(step.local_error, 2)}"
        shown.append(tag("div", f"{step.proved} proved one by one{worst}", class_="sub"))
    return shown + [_failure(failure) for failure in step.failures]


def _failure(failure: Failure) -> Html:
    where = ", ".join(part for part in (failure.node, failure.tensor) if part)
    what = f" {failure.rule} at {where}: " if where else f" {failure.rule}: "
    return tag("div", pill("not kept", "bad"), what, failure.reason, class_="why")


def _change(before: str, after: str) -> str:
    return after if before == after else f"{before} \N{RIGHTWARDS ARROW} {after}"


def calibration(report: Report) -> Html:
    """What the ranges were taken from."""
    found = report.calibration
    content = _calibration(found) if found else tag("p", report.calibration_reason)
    return section("calibration", "Calibration", content)


def _calibration(found: Calibration) -> Html:
    tokens = None if found.tokens is None else f"{found.tokens:,}, padding left out"
    pairs = facts(
        {
            "samples": f"{found.samples:,}",
            "from": name(found.source),
            "tokens": tokens,
            "method": found.method,
            "seed": found.seed,
            "digest": digest(found.digest),
        }
    )
    return html((pairs, _notes(found.notes)))


def _notes(notes: Sequence[str]) -> Html | None:
    return tag("ul", [tag("li", note) for note in notes], class_="remarks") if notes else None


def layers(report: Report) -> Html:
    """Which weight MatMuls are INT8, why the others are not, and the error of each."""
    from .layers import plot, worst

    found = report.quantization
    if found is None:
        return section("layers", "Precision, layer by layer", tag("p", report.quantization_reason))
    share = tag(
        "p",
        tag("strong", figures.percent(found.int8_share)),
        " of the weight MatMuls' multiply-adds are INT8.",
    )
    return section(
        "layers",
        "Precision, layer by layer",
        share,
        gauge(found.int8_share, "accent wide"),
        _notes(found.notes),
        plot(found.layers),
        worst(found.layers),
    )


def engines(report: Report) -> Html:
    """Every engine that was built, and whether it ran here."""
    columns = (
        Column("engine"),
        Column("precision"),
        Column("size", True),
        Column("executed here"),
        Column("facts"),
    )
    rows = [_engine(engine) for engine in report.engines]
    return section("engines", "Engines", table(columns, rows) if rows else None)


def _engine(engine: Engine) -> tuple[object, ...]:
    ran = pill("executed", "good") if engine.executed else pill("compiled only", "warn")
    why = None if engine.executed else tag("div", engine.reason, class_="why")
    size = figures.size(engine.size_bytes)
    return tag("strong", engine.backend), engine.precision, size, (ran, why), _facts(engine)


def _facts(engine: Engine) -> Html:
    """What is short as chips; the rest, and it may be long, folded away."""
    chips: list[Html] = []
    rest: dict[str, object] = {}
    for key, value in engine.facts.items():
        text = figures.plain(key, value)
        if len(text) > _SHORT:
            rest[key] = value
        elif key not in Engine.model_fields:
            chips.append(tag("span", f"{figures.label(key)} {text}", class_="chip"))
    if not rest:
        return html(chips or figures.NONE)
    text = json.dumps(rest, indent=2, ensure_ascii=False)
    more = tag("summary", f"{len(rest)} more")
    return html((chips, tag("details", more, tag("pre", text))))


def environment(report: Report) -> Html:
    """The machine and the versions the figures were measured with."""
    found = report.environment
    versions = [
        tag("span", f"{name} {version}", class_="chip") for name, version in found.packages.items()
    ]
    pairs = facts(
        {
            "processor": f"{found.cpu}, {found.cores} cores",
            "memory": figures.size(found.memory_bytes),
            "system": found.os,
            "python": found.python,
            "threads": found.threads,
            "seed": found.seed,
            "packages": versions,
            "written by": f"{report.tool.name} {report.tool.version}",
        }
    )
    return section("environment", "Environment", pairs)
