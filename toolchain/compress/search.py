"""Widths that meet a latency with the least loss: dynamic programming, then trials of it.

Losses of single groups do not add up; as SPDY (arXiv 2201.13096) does, the programme is solved
again with groups' losses scaled at random, and what really loses least together is kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .subject import Choice, Widths

#: Steps that the latency budget is cut into.
STEPS = 2000
#: How far losses are scaled, in logarithms, and of how many groups in a trial.
SPREAD, SHARE = 0.7, 0.4
Indices = NDArray[np.int64]


def solve(
    choices: Sequence[Choice], saving: float, scale: Mapping[str, float] | None = None
) -> Widths | None:
    """A level for each group that saves `saving` seconds in all at the least sum of losses.

    None where even the narrowest do not.
    """
    step = max(saving, 1e-12) / STEPS
    best = np.full(STEPS + 1, np.inf)
    best[0] = 0.0
    taken = list[tuple[Indices, Indices]]()
    for choice in choices:
        factor = (scale or {}).get(choice.group.consumer, 1.0)
        grown = np.full(STEPS + 1, np.inf)
        pick, came = np.zeros(STEPS + 1, np.int64), np.zeros(STEPS + 1, np.int64)
        for at, (loss, seconds) in enumerate(zip(choice.losses, choice.seconds, strict=True)):
            for source, target in _moves(best, int(max(-seconds, 0.0) / step)):
                cost = best[source] + loss * factor
                better = cost < grown[target]
                grown[target[better]] = cost[better]
                pick[target[better]], came[target[better]] = at, source[better]
        taken.append((pick, came))
        best = grown
    return _traced(choices, taken) if np.isfinite(best[STEPS]) else None


def _moves(best: NDArray[np.float64], by: int) -> Iterator[tuple[Indices, Indices]]:
    """From which step to which a saving moves; of all that reach the end, from the best."""
    inner = np.arange(max(0, STEPS - by))
    yield inner, inner + by
    rest = np.arange(len(inner), STEPS + 1)
    yield rest[[int(np.argmin(best[rest]))]], np.array([STEPS])


def _traced(choices: Sequence[Choice], taken: Sequence[tuple[Indices, Indices]]) -> Widths:
    place, widths = STEPS, dict[str, int]()
    for choice, (pick, came) in zip(reversed(choices), reversed(taken), strict=True):
        widths[choice.group.consumer] = int(pick[place])
        place = int(came[place])
    return widths


def searched(
    choices: Sequence[Choice],
    saving: float,
    joint: Callable[[Widths], float],
    trials: int = 24,
    seed: int = 0,
) -> tuple[Widths, float] | None:
    """The widths whose joint loss is least of all that were tried, and that loss."""
    best = solve(choices, saving)
    if best is None:
        return None
    least, random = joint(best), np.random.default_rng(seed)
    names = [choice.group.consumer for choice in choices]
    centre, tried = np.zeros(len(names)), {tuple(best.values())}
    for _ in range(trials):
        moved = centre + random.normal(0.0, SPREAD, len(names)) * (
            random.random(len(names)) < SHARE
        )
        widths = solve(choices, saving, dict(zip(names, np.exp(moved).tolist(), strict=True)))
        if widths is None or tuple(widths.values()) in tried:
            continue
        tried.add(tuple(widths.values()))
        loss = joint(widths)
        if loss < least:
            best, least, centre = widths, loss, moved
    return best, least
