"""A stage's figures and a gate's limit, as every form of the report writes them."""

from . import figures
from .making import Stage
from .proof import Gate

COLUMNS = ("stage", "seconds", "peak memory", "size", "parity", "score", "latency ratio")


def cells(stage: Stage) -> tuple[str, ...]:
    """A stage under `COLUMNS`, unescaped."""
    return (
        stage.name,
        figures.seconds(stage.seconds),
        figures.size(stage.peak_memory_bytes),
        figures.size(stage.size_bytes),
        figures.near_one(stage.parity.cosine_mean) if stage.parity else figures.NONE,
        figures.score(stage.score),
        figures.ratio(stage.latency_ratio),
    )


def limit(gate: Gate) -> str:
    """A gate's limit, unescaped; one that was never executed may not know it, and then says 0."""
    known = gate.status != "not-executed" or bool(gate.limit)
    return value(gate.limit) if known else figures.NONE


def excused(gate: Gate) -> bool:
    """Whether a gate was not executed, and did not have to be."""
    return gate.allowed and gate.status == "not-executed"


def mend_of(gate: Gate) -> str | None:
    """What to do about a gate; nothing about one that holds or is excused."""
    return None if gate.status == "pass" or excused(gate) else gate.mend


def value(figure: float | str | None) -> str:
    """A gate's limit or value, unescaped, with digits enough to see a near miss."""
    return figure if isinstance(figure, str) else figures.number(figure, 6)
