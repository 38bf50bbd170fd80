"""What one cell of a matrix came to: its gates, and its figures or why there are none."""

from dataclasses import dataclass, field
from typing import Literal

from ..release import Outcome as Release
from ..report import Gate, Report

Verdict = Literal["pass", "fail", "incomplete", "error", "pending"]
#: What a cell is shown by.
FIGURES = ("score", "of float", "cosine", "int8 share", "speedup", "bytes")


@dataclass(frozen=True)
class Outcome:
    """A cell's end. `figures` holds every one of `FIGURES`; one that is None has its reason.

    `made` of `stages` were made in this run, the rest was fresh or another cell's. `exit_code` is
    what `release` would have ended with.
    """

    verdict: Verdict = "pending"
    exit_code: int | None = None
    error: str = ""
    failing: tuple[str, ...] = ()
    metric: str = ""
    figures: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(FIGURES))
    reasons: dict[str, str] = field(default_factory=lambda: dict.fromkeys(FIGURES, "not made"))
    page: str = ""
    bundles: tuple[str, ...] = ()
    made: int = 0
    stages: int = 0


def measured(release: Release, *, page: str, made: tuple[int, int]) -> Outcome:
    """A cell's end from its release's report."""
    report = release.report
    found = {**_score(report), **_rest(report)}
    bad = [gate for gate in report.gates if not _holds(gate)]
    return Outcome(
        verdict=report.verdict,
        exit_code=release.exit_code,
        failing=tuple(f"{gate.name}: {gate.reason or gate.status}" for gate in bad),
        metric=next((score.metric for score in report.scores), ""),
        figures={name: found[name][0] for name in FIGURES},
        reasons={name: found[name][1] for name in FIGURES if found[name][0] is None},
        page=page,
        bundles=tuple(bundle.path for bundle in report.bundles),
        made=made[0],
        stages=made[1],
    )


def _holds(gate: Gate) -> bool:
    return gate.status == "pass" or (gate.status == "not-executed" and gate.allowed)


Found = dict[str, tuple[float | None, str]]


def _score(report: Report) -> Found:
    scored = [score for score in report.scores if score.value is not None]
    if not scored:
        reason = "no engine was scored here" if report.scores else "no [evaluation] is configured"
        return {"score": (None, reason), "of float": (None, reason)}
    last = scored[-1]
    return {"score": (last.value, ""), "of float": (last.against_float, "it is float")}


def _rest(report: Report) -> Found:
    means = [
        output.cosine_mean
        for line in report.parity
        for output in line.outputs
        if output.cosine_mean is not None
    ]
    ratios = [line.ratio for line in report.latency if line.ratio is not None and line.ratio != 1]
    share = report.quantization.int8_share if report.quantization else None
    executed = {f"engine/{engine.backend}" for engine in report.engines if engine.executed}
    # by stage: the engines of a report are the float one too, which is built after what ships
    sizes = [stage.size_bytes for stage in report.stages if stage.name in executed]
    return {
        "cosine": (min(means, default=None), "nothing was compared"),
        "int8 share": (share, report.quantization_reason or "not said"),
        "speedup": (min(ratios, default=None), "nothing was timed against float"),
        "bytes": (sizes[-1] if sizes else None, "no engine was executed here"),
    }
