"""What a plan takes off a graph's inputs and outputs: a cache loses the heads that go."""

from collections.abc import Sequence

import numpy as np

from ...passes.coupling import Group
from ..narrowing import Cut, Narrowing
from .subject import Plan


def narrowing_of(groups: Sequence[Group], plan: Plan) -> Narrowing:
    """The narrowing of a graph whose groups keep the plan's units."""
    cuts, gone = dict[str, Cut](), list[str]()
    for group in groups:
        kept = plan.get(group.consumer)
        if kept is None or len(kept) == group.units or not group.interface:
            continue
        if not kept:
            gone += group.interface
            continue
        for (value, axis), labels in group.places.items():
            if value.name in group.interface:
                stays = np.flatnonzero(np.isin(labels, kept))
                cuts[value.name] = (axis, tuple(int(each) for each in stays))
    return Narrowing(cuts=cuts, gone=tuple(gone))
