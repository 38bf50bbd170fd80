"""From the record of the stage `compress` to the report: what each layer lost, and at what cost."""

from collections.abc import Iterable, Mapping
from typing import Any

from . import report as rep
from .run import Run

_ALIKE = "every layer alike was asked for: nothing was timed or planned"


def compression(run: Run) -> rep.Compression | None:
    """What was taken away; None where nothing was compressed."""
    stage = run.stages.get("compress")
    if stage is None:
        return None
    found = stage.results
    planned, ratio = found.get("planned_loss"), found.get("latency_ratio")
    return rep.Compression(
        loss=found["loss"],
        planned_loss=planned,
        planned_loss_reason=None if planned is not None else _why(found),
        latency_ratio=ratio,
        latency_ratio_reason=None if ratio is not None else _why(found),
        macs_before=found.get("macs_before"),
        macs_after=found.get("macs_after"),
        layers=(*_units(found), *_ranks(found), *_zeros(found), *_whole(found)),
        left_alone={each["node"]: each["reason"] for each in found.get("left_alone", ())},
        notes=tuple(found.get("notes", ())),
    )


def _why(found: Mapping[str, Any]) -> str:
    return _ALIKE if found.get("layers") else "no pass of the stage plans by a clock"


def _units(found: Mapping[str, Any]) -> Iterable[rep.Taken]:
    for each in found.get("layers", ()):
        before, after = each["units"], each["kept"]
        yield rep.Taken(node=each["node"], by="prune", kind="units", of=each["kind"],
                        before=before, after=after)  # fmt: skip


def _ranks(found: Mapping[str, Any]) -> Iterable[rep.Taken]:
    for each in found.get("factored", ()):
        sides = min(each["k"], each["n"])
        yield rep.Taken(node=each["node"], by="low-rank", kind="rank", of="rank", before=sides,
                        after=each["rank"], error=each["error"])  # fmt: skip


def _zeros(found: Mapping[str, Any]) -> Iterable[rep.Taken]:
    for each in found.get("sparse", ()):
        yield rep.Taken(node=each["node"], by="sparsify", kind="zeros", of="zeros", before=1.0,
                        after=each["zeros"], error=each["error"])  # fmt: skip


def _whole(found: Mapping[str, Any]) -> Iterable[rep.Taken]:
    if "vocabulary" in found:
        words = found["vocabulary"]
        yield rep.Taken(node="embedding", by="vocabulary", kind="tokens", of="tokens",
                        before=words["before"], after=words["after"])  # fmt: skip
