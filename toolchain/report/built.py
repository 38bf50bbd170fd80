"""What was done to the graph, as parts of the page: passes, ranges, precision, engines."""

import json
from collections.abc import Sequence

from . import figures, layers
from .charts import gauge
from .making import Cache, Calibration, Engine, Failure, Step
from .markup import (
    Column,
    Html,
    Notes,
    digest,
    facts,
    html,
    name,
    pill,
    section,
    table,
    tag,
)
from .mixtures import curve
from .record import Report

#: Facts longer than this many characters are folded away.
_SHORT = 44


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


#: What is said of a share of multiply-adds, by precision.
KINDS = {
    "w8": "read INT8 weights",
    "int4": "read INT4 weights",
    "fp8": "are FP8",
    "w8a16": "are INT8 weights by INT16 activations",
}


def precision(report: Report) -> Html:
    """Which weight MatMuls are INT8, why the others are not, and the error of each."""
    found, title = report.quantization, "Precision, layer by layer"
    if found is None:
        return section("precision", title, tag("p", report.quantization_reason))
    share = tag(
        "p",
        tag("strong", figures.percent(found.int8_share)),
        f" of the weight MatMuls' multiply-adds {KINDS.get(found.precision, 'are INT8')}.",
    )
    return section(
        "precision",
        title,
        share,
        gauge(found.int8_share, "accent wide"),
        _notes(found.notes),
        curve(found),
        layers.plot(found.layers),
        layers.activations(found.layers),
        layers.worst(found.layers),
    )


def cache(report: Report) -> Html:
    """What a decoder keeps of earlier tokens, where that is int8."""
    found = report.cache
    content = _cache(found) if found else None
    lead = "Keys and values of earlier tokens are kept as int8; drop is on held-out samples."
    return section("cache", "Cache", content, lead=lead)


def _cache(found: Cache) -> Html:
    left = "; ".join(f"{name}: {why}" for name, why in found.left_alone.items())
    drop = found.drop_reason if found.drop is None else figures.number(found.drop, 2)
    sizes = (found.bytes_per_token_float, found.bytes_per_token)
    return facts(
        {
            "a token": _change(*map(figures.size, sizes)),
            "drop": drop,
            "worst signal to noise": f"{figures.number(found.snr_db, 3)} dB",
            "beyond the last level": figures.percent(found.saturated),
            "left in float": left or None,
        }
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
