"""What the dense model tells before anything is removed: inputs, weights, and units in order.

One layer is in memory at a time: what was seen of each lies on disk where it is asked for again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...calibration.moments import Moments
from ...calibration.removal import Order
from ...passes.coupling import Group
from ...passes.prune import Prune
from ...passes.sites import Site, by_name, find, layer_of, weight_of
from .levels import order, share
from .shelf import Filed
from .subject import Subject
from .visiting import visit


class Weights(Mapping[str, NDArray[np.float64]]):
    """The weight [k, n] of each reader, read when it is asked for."""

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        nodes = by_name(model)
        self._model, self._layers = model, {name: layer_of(nodes[name]) for name in names}

    @property
    def outputs(self) -> dict[str, int]:
        """How many outputs each has."""
        return {name: layer.n for name, layer in self._layers.items()}

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return weight_of(self._model, self._layers[name]).astype(np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


@dataclass(frozen=True)
class Known:
    """Of each reader its inputs (none where shares are asked for), weights and units in order.

    `rows` are the tokens seen, `means` the mean inputs [k].
    """

    seen: Mapping[str, Moments]
    weights: Weights
    orders: Mapping[str, Order]
    rows: Mapping[str, int]
    means: Mapping[str, NDArray[np.float64]]


def learned(
    subject: Subject, model: ir.Model, chosen: Sequence[Group], asked: Prune, folder: Path
) -> Known:
    """What samples tell of the readers of the chosen groups."""
    groups = {each.consumer: each for each in chosen}
    weights = Weights(model, list(groups))
    seen, orders, rows = Filed(folder), dict[str, Order](), dict[str, int]()
    means = dict[str, NDArray[np.float64]]()

    def see(site: Site, moments: Moments) -> None:
        for layer in site.layers:
            if layer.node not in groups:
                continue
            group = groups[layer.node]
            most = group.units - share(group, asked) if asked.uniform else None
            found = order(group, moments, weights[layer.node], asked.method, most)
            orders[layer.node], rows[layer.node] = found, moments.rows
            means[layer.node] = moments.means()[0]
            if not asked.uniform:
                seen.put(layer.node, moments)

    readers = [s for s in find(model) if any(layer.node in groups for layer in s.layers)]
    visit(subject, model, readers, see)
    return Known(seen, weights, orders, rows, means)
