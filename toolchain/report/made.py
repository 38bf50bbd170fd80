"""Where a release comes from and what it cost: lineage, stages, sizes, environment."""

from collections.abc import Sequence
from itertools import groupby

from . import figures
from .charts import Bar, bars
from .making import Stage
from .markup import Column, Html, Notes, digest, facts, html, name, section, table, tag
from .record import Report
from .timed import footprints


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
    alone = footprints(report)
    whole = (tag("div", charts, class_="pair"), tag("div", alone, class_="pair") if alone else None)
    return section("sizes", "Size and memory", whole if report.stages else None)


def _chart(title: str, lines: Sequence[tuple[str, int]]) -> Html:
    items = [Bar(one, value, figures.size(value), tone=_tone(one)) for one, value in lines]
    return tag("figure", tag("figcaption", title), bars(items, title))


def _tone(stage: str) -> str:
    return "accent" if stage.startswith("engine/") else "plain"


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
