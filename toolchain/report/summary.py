"""The line of a stage, as the terminal and the job summary both write it."""

from . import figures
from .making import Stage

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


def value(limit: float | str | None) -> str:
    """A gate's limit or value, unescaped."""
    return limit if isinstance(limit, str) else figures.number(limit)
