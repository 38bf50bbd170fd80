"""The model's layers rounded, activation by activation, their weights read one at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from ...calibration import Feed, one_thread, side_by_side
from ...calibration.awq import Sharing
from ...calibration.blockwise import Grid, Matrix, fitting
from ...passes.sites import Layer, Site, by_name
from ...passes.weight_only import Blocks, matrix, stored
from .packed import Scratch
from .recipe import Case, Choice, Recipe, Rounding
from .rounding import chosen, plain
from .streaming import Measured, measure

Item = TypeVar("Item")
Result = TypeVar("Result")
#: Elements of the weights that read one activation from which on it is rounded alone, its columns
#: side by side: two such at a time would take twice the memory.
LARGE = 1 << 24
#: Where the scale of an activation goes without a node of its own.
EXACT = ("norm", "gain", "weight")


@dataclass(frozen=True)
class Samples:
    """Batches to round by, and others to choose by; `mask` names what marks real tokens."""

    fit: Sequence[Feed] = ()
    held_out: Sequence[Feed] = ()
    mask: str | None = None


@dataclass
class Made:
    """What was rounded so far: by layer its blocks and its rounding; by activation its choice."""

    blocks: dict[str, Blocks] = field(default_factory=dict[str, Blocks])
    roundings: dict[str, Rounding] = field(default_factory=dict[str, Rounding])
    choices: dict[str, Choice] = field(default_factory=dict[str, Choice])


class Rounds:
    """Rounds the layers of `sites` of a model; levels go to `scratch` as they are made."""

    def __init__(
        self, graph: ir.Model, sites: Sequence[Site], recipe: Recipe, scratch: Scratch
    ) -> None:
        self._initializers, self._nodes = graph.graph.initializers, by_name(graph)
        self._sites, self._recipe, self._scratch = sites, recipe, scratch
        self._first: dict[str, str] = {}
        self.made = Made()

    def to_nearest(self) -> Made:
        """All layers, no samples asked."""

        def of_one(site: Site) -> Choice:
            return plain(self._case(site))

        for site, choice in zip(self._sites, self._work(of_one, self._sites), strict=True):
            self._take(site, choice)
            del choice  # its levels are on disk: the next one's take their place
        return self.made

    def by_samples(self, model: Path, folder: Path, samples: Samples) -> Made:
        """All layers, by what their activations are on the samples."""
        given = (samples.fit, samples.held_out, samples.mask)
        measured = measure(model, folder, self._sites, *given)
        for site, choice in self._work(self._chosen, measured):
            self._take(site, choice)
            del choice
        return self.made

    def _work(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work` of each item in order, side by side unless that takes too much memory."""
        if max(sum(each.k * each.n for each in site.layers) for site in self._sites) <= LARGE:
            yield from side_by_side(work, items)
            return
        with one_thread():
            yield from map(work, items)

    def _chosen(self, each: Measured) -> tuple[Site, Choice]:
        case, sharing = self._case(each.site), self._sharing(each.site)
        return each.site, chosen(case, each.fit, each.held_out, self._recipe, sharing)

    def _matrix(self, layer: Layer) -> Matrix:
        return matrix(self._nodes[layer.node])

    def _case(self, site: Site) -> Case:
        value = self._nodes[site.layers[0].node].inputs[1]
        dtype = (value.dtype if value is not None else None) or ir.DataType.FLOAT
        grids = tuple(self._grid(layer) for layer in site.layers)
        reads = tuple(partial(self._matrix, layer) for layer in site.layers)
        return Case(reads, grids, np.dtype(dtype.numpy()))

    def _grid(self, layer: Layer) -> Grid:
        return Grid(self._recipe.bits, fitting(layer.k, self._recipe.block), self._recipe.moved)

    def _sharing(self, site: Site) -> Sharing | None:
        """Which channels share a scale; None where they cannot be scaled without another node."""
        values = [self._initializers.get(layer.weight) for layer in site.layers]
        alone = all(value is not None and len(value.uses()) == 1 for value in values)
        if site.fold.kind not in EXACT or not alone or any(each.refused for each in site.layers):
            return None
        return Sharing(site.fold.repeat, site.fold.width)

    def _take(self, site: Site, choice: Choice) -> None:
        """Keep a choice; its levels go to the file."""
        self.made.choices[site.tensor] = _lean(choice)
        for layer, rounding in zip(site.layers, choice.layers, strict=True):
            self.made.roundings[layer.node] = rounding.lean()
            first = self._first.setdefault(layer.weight, layer.node)
            if first == layer.node:  # a weight that others read too is rounded for the first
                self.made.blocks[layer.node] = self._blocks(layer, rounding)
            self.made.blocks[layer.node] = self.made.blocks[first]

    def _blocks(self, layer: Layer, rounding: Rounding) -> Blocks:
        grid, levels, zeros = self._grid(layer), rounding.levels, rounding.zeros
        if zeros is not None:
            zeros = zeros.astype(np.int8)
            levels = levels.reshape(len(zeros), -1, layer.n) + zeros[:, None]
            levels = levels.reshape(layer.k, layer.n).astype(np.int8, copy=False)
        kept = self._scratch.write(stored(layer, levels), layer.node)
        return Blocks(kept, rounding.steps, grid.block, zeros)


def _lean(choice: Choice) -> Choice:
    return Choice(choice.scale, choice.power, ())
