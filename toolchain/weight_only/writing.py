"""The graph of a float model whose weights are in few bits, as a recipe has them, written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration import Feed
from ...passes import PassManager, Step, load, save
from ...passes.sites import Site
from ...passes.smooth import Smooth
from ...passes.weight_only import Blocks, WeightOnly
from ..replay import Probe, unpadded
from .packed import Scratch
from .recipe import Recipe
from .rounds import Made, Rounds, Samples
from .table import Loss


@dataclass(frozen=True)
class Written:
    """What was rounded, the passes that wrote it, and what the outputs lose."""

    rounded: Made
    steps: tuple[Step, ...]
    drop: float | None


@dataclass(frozen=True)
class Writer:
    """The layers `taken` of `model`, rounded into `folder`; its `loss` is over `held_out`."""

    model: Path
    folder: Path
    taken: tuple[Site, ...]
    loss: Loss
    held_out: Sequence[Feed]

    def __call__(self, recipe: Recipe, samples: Samples) -> Written:
        """By a recipe, of samples where it asks for some and there are."""
        scratch = Scratch(self.folder / ".weights", recipe.bits)
        try:
            rounds = Rounds(load(self.model), self.taken, recipe, scratch)
            if samples.fit:
                made = rounds.by_samples(self.model, self.folder, samples)
            else:
                made = rounds.to_nearest()
            steps = write(self.model, self.folder, self.taken, made, samples)
            return Written(made, steps, self.loss.of(self.model, self.folder, self.held_out))
        finally:
            scratch.close()


def write(
    model: Path, folder: Path, taken: Sequence[Site], made: Made, samples: Samples
) -> tuple[Step, ...]:
    """The graph with channels scaled and weights replaced."""
    scales = {name: c.scale for name, c in made.choices.items() if c.scale is not None}
    blocks = dict(made.blocks)
    for site in taken:
        if site.tensor in scales and site.fold.kind == "weight" and site.fold.node in blocks:
            blocks[site.fold.node] = _divided(blocks[site.fold.node], site, scales[site.tensor])
    probe = Probe([unpadded(samples.fit[0], samples.mask)]) if samples.fit else None
    smooth = [Smooth(scales=scales, shifts={})] if scales else []
    graph, first = PassManager(smooth, verify=probe).run(load(model))
    graph, second = PassManager([WeightOnly(layers=blocks)]).run(graph)
    save(graph, folder)
    return (*first, *second)


def _divided(blocks: Blocks, site: Site, scale: NDArray[Any]) -> Blocks:
    """The columns of an earlier weight divided by the scale of what it makes: its steps alone."""
    fold = site.fold
    if fold.repeat > 1:
        scale = scale.reshape(-1, fold.repeat, fold.width)[:, 0].reshape(-1)
    return replace(blocks, steps=(blocks.steps / scale).astype(np.float32))
