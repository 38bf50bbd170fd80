"""Which widths a group may have, and in which order its units go."""

import numpy as np

from ...calibration.moments import Moments
from ...calibration.removal import Method, Order, removal_order
from ...passes.coupling import Group

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


def order(group: Group, seen: Moments, weight: np.ndarray, method: Method) -> Order:
    """The order in which a group's units go, by what is seen of its consumer's inputs."""
    gram = seen.gram / max(seen.rows, 1)
    return removal_order(gram, weight.astype(np.float64), group.labels, seen.rows, method)
