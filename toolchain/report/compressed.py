"""What of a float graph was taken away, as a part of the page."""

from collections.abc import Iterator

from . import figures
from .charts import gauge
from .compression import Compression, Taken
from .markup import Column, Html, Notes, code, facts, section, table, tag
from .record import Report

#: So many left alone are named by layer, the others counted.
NAMED = 12


def compression(report: Report) -> Html:
    """By layer what stays; what it costs at the outputs, before and after correction."""
    found = report.compression
    if found is None:
        return Html("")
    lead = (
        "Losses are of the outputs on held-out samples against the dense model: 1 - the mean "
        "cosine, of logits the divergence in nats. Multiply-adds are reported, not aimed at."
    )
    return section("compression", "Compression", _whole(found), _layers(found), _alone(found),
                   lead=lead)  # fmt: skip


def _whole(found: Compression) -> Html:
    notes = Notes()
    share = None
    if found.macs_before and found.macs_after is not None:
        share = f"{figures.count(found.macs_after)} of {figures.count(found.macs_before)} a token, "
        share += figures.percent(found.macs_after / found.macs_before)
    planned = figures.number(found.planned_loss, 3)
    faster = figures.ratio(found.latency_ratio)
    pairs = {
        "loss": figures.number(found.loss, 3),
        "loss before correction": planned
        if found.planned_loss is not None
        else notes.mark(found.planned_loss_reason),
        "speed": (faster, " dense, on one thread while planning")
        if found.latency_ratio is not None
        else notes.mark(found.latency_ratio_reason),
        "multiply-adds": share,
    }
    said = [tag("p", note, class_="sub") for note in found.notes]
    return Html(facts(pairs) + notes.html() + "".join(said))


def _layers(found: Compression) -> Html | None:
    if not found.layers:
        return None
    columns = (
        Column("layer"),
        Column("by"),
        Column("kept"),
        Column("of", True),
        Column("error", True),
    )
    return table(columns, [_row(each) for each in found.layers])


def _row(each: Taken) -> tuple[object, ...]:
    left = 1 - each.after if each.kind == "zeros" else each.after
    share = left / each.before if each.before else 0.0
    counts = f"{each.after:g} of {each.before:g}"
    told = f"{figures.percent(each.after)} zeros" if each.kind == "zeros" else counts
    return (
        code(each.node),
        each.by,
        (gauge(share), " ", f"{told} {each.of}" if each.kind != "zeros" else told),
        figures.percent(share),
        figures.number(each.error, 3),
    )


def _alone(found: Compression) -> Html | None:
    if not found.left_alone:
        return None
    lines = [tag("li", line) for line in _lines(found.left_alone)]
    return tag("details", tag("summary", f"{len(found.left_alone)} left alone"), tag("ul", lines))


def _lines(left: dict[str, str]) -> Iterator[tuple[object, ...]]:
    for node, reason in list(left.items())[:NAMED]:
        yield code(node), f": {reason}"
    if len(left) > NAMED:
        yield (f"and {len(left) - NAMED} more",)
