"""From losses and seconds of each width to a plan: as fast as asked, or as fast as loss allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ... import ConfigError
from .search import searched
from .subject import Choice, Plan, Widths
from .table import Clock

#: How often a plan that is timed as a whole and falls short is made narrower.
ROUNDS = 4
#: A plan this near to the asked speed is fast enough.
NEAR = 0.99
#: Correcting layer by layer takes off about so much of the loss that is measured before it.
CORRECTED = 1.2
#: Between which speeds the greatest is looked for, and in how many halvings.
FASTEST, HALVINGS = 8.0, 6
TIMING_S = 6.0


@dataclass(frozen=True)
class Ask:
    """What is asked for: a speed, or else as much as a loss allows."""

    speedup: float | None
    max_drop: float


@dataclass(frozen=True)
class Found:
    """Units that stay, how much faster that was measured to be, and its loss before correcting."""

    plan: Plan
    ratio: float
    loss: float


Joint = Callable[[Widths], float]


def widths(choices: Sequence[Choice], dense: float, ask: Ask, joint: Joint, clock: Clock) -> Found:
    """The plan; `dense` is the dense model's seconds.

    Raises:
        ConfigError: the model does not get so fast by what can be removed of it.
    """
    if ask.speedup is not None:
        return _as_fast(choices, dense, ask.speedup, joint, clock)
    low, high, best = 1.0, FASTEST, None
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        made = searched(choices, dense * (1 - 1 / middle), joint, trials=8)
        if made is not None and made[1] <= ask.max_drop * CORRECTED:
            low, best = middle, made
        else:
            high = middle
    if best is None:
        raise ConfigError("nothing can go at so little loss", mend="raise max-drop")
    plan = planned(choices, best[0])
    slow, fast = clock.ratio(plan, TIMING_S)
    return Found(plan, slow / fast, best[1])


def _as_fast(
    choices: Sequence[Choice], dense: float, speedup: float, joint: Joint, clock: Clock
) -> Found:
    """What a table promises is timed as a whole; where that falls short, more is asked for."""
    target, found = speedup, None
    for _ in range(ROUNDS):
        made = searched(choices, dense * (1 - 1 / target), joint)
        if made is None:
            break
        plan = planned(choices, made[0])
        slow, fast = clock.ratio(plan, TIMING_S)
        found = Found(plan, slow / fast, made[1])
        if found.ratio >= speedup * NEAR:
            return found
        target *= max(speedup / found.ratio, 1.01)
    best = f"{found.ratio:.2f}" if found else f"less than {target:.2f}"
    raise ConfigError(
        f"pruning does not make the model {speedup:g} times as fast, but {best}",
        where="[[passes]] speedup",
        mend="ask for less, or add --int8",
    )


def planned(choices: Sequence[Choice], found: Widths) -> Plan:
    """The units that stay at the levels that were found."""
    return {each.group.consumer: each.levels[found[each.group.consumer]].kept for each in choices}
