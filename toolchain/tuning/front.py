"""Which of the measured points none other beats, and which one is taken."""

from collections.abc import Sequence
from typing import Literal

from .limits import FIGURES, Limits, doubt, worst
from .limits import says as missed
from .result import Result
from .study import objectives

Prefer = Literal["score", "latency", "size"]
ORDER = {"score": (0, 1, 2), "latency": (1, 0, 2), "size": (2, 0, 1)}


def front(results: Sequence[Result]) -> list[Result]:
    """The whole results that no other is as good as in all three, and better in one."""
    whole = [result for result in results if result.whole]
    return [one for one in whole if not any(_beats(other, one) for other in whole)]


def _beats(one: Result, two: Result) -> bool:
    pairs = list(zip(objectives(one), objectives(two), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def chosen(results: Sequence[Result], limits: Limits, prefer: Prefer) -> Result | None:
    """The point that holds every limit and is best in what is preferred; None where none does.

    Those that surely hold go first: a release is timed again, maybe on a busier day, and scored
    on other data. Where none does, the one goes first that noise takes beyond a limit least.
    """

    def key(result: Result) -> tuple[float, ...]:
        return round(doubt(limits, result.figures), 2), *_ranked(result, prefer)

    return min((result for result in results if result.fits), key=key, default=None)


def _ranked(result: Result, prefer: Prefer) -> tuple[float, ...]:
    values = objectives(result)
    return tuple(round(values[place], 4) for place in ORDER[prefer])


def nearest(results: Sequence[Result]) -> Result | None:
    """The point that is least beyond its limits, of those that have figures of them."""
    known = [result for result in results if result.beyond and "made" not in result.beyond]
    return min(known, key=_shortfall, default=None)


def _shortfall(result: Result) -> tuple[bool, float]:
    return not result.whole, sum(max(0.0, value) for value in result.beyond.values())


def shortfalls(result: Result, limits: Limits) -> str:
    """What a point misses, in words."""
    said = [
        missed(name, result.figures[FIGURES[name].figure], limits.asked[name])
        for name, value in result.beyond.items()
        if value > 0 and name in limits.asked and FIGURES[name].figure in result.figures
    ]
    return "; ".join(said) or result.stopped or worst(result.beyond)
