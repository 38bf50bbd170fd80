"""Which widths a group may have, and in which order its units go."""

import numpy as np

from ...calibration.moments import Moments
from ...calibration.removal import Method, Order, removal_order
from ...passes.coupling import Group
from ...passes.prune import Prune

#: Shares of the units that are tried, beside all of them and none.
SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.3125, 0.25, 0.1875, 0.125, 0.0625)
#: A group of no more units than this is tried at every count.
FEW = 16


def counts(group: Group, multiple: int, least: int) -> tuple[int, ...]:
    """How many units a group may keep, most first; widths are multiples of `multiple` channels.

    `least` is 0 where the whole group may go.
    """
    size = group.width // group.units
    step = max(1, -(-multiple // size))
    if group.units <= FEW * step:
        tried = range(step, group.units, step)
    else:
        tried = [round(group.units * share / step) * step for share in SHARES]
    inner = {count for count in tried if max(least, 1) <= count < group.units}
    return tuple(sorted({group.units, *inner, *([0] if least == 0 else [])}, reverse=True))


def share(group: Group, asked: Prune) -> int:
    """How many units stay where a share of each layer goes, rounded to the asked multiple."""
    gone = (asked.neurons if group.kind == "neurons" else asked.heads) or 0.0
    step = max(1, -(-asked.multiple // (group.width // group.units)))
    return min(max(step, round(group.units * (1 - gone) / step) * step), group.units)


def order(
    group: Group, seen: Moments, weight: np.ndarray, method: Method, most: int | None = None
) -> Order:
    """The order in which a group's units go, by what is seen of its consumer's inputs."""
    if most == 0:
        return Order(tuple(range(group.units)), (0.0,) * group.units)
    wide = weight.astype(np.float64)
    return removal_order(seen.mean(), wide, group.labels, seen.rows, method, most)
