"""Weight-only quantisation of a float graph: the door of the stage `quantize` for int4 and w8."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import ConfigError
from ...passes import PassManager, Step, load, save
from ...passes.experts import experts
from ...passes.sites import MIN_DIM, Layer, Site, find
from ...passes.smooth import Smooth
from ...passes.weight_only import Blocks, WeightOnly
from ..choosing import can_keep
from ..replay import Probe, unpadded
from .packed import Scratch
from .recipe import Recipe
from .rounds import Made, Rounds, Samples
from .table import Loss, table

#: Bits of a weight, by precision.
BITS = {"int4": 4, "w8": 8}


def quantize(
    model: Path,
    folder: Path,
    *,
    recipe: Recipe,
    samples: Samples,
    keep: Sequence[str] = (),
    head: bool = False,
    logits: Sequence[str] = (),
) -> dict[str, Any]:
    """Fill `folder` with the graph whose weights are in few bits; give what became of each layer.

    Weights are read, rounded and written one at a time. `head` takes the output head too.

    Raises:
        ConfigError: a node in `keep` that is no weight MatMul, or nothing that could be rounded.
        CalibrationError: the model gives NaN or Inf on the samples.
    """
    graph = load(model)
    sites, apart = find(graph), experts(graph)
    taken = _taken(sites, keep, head, apart)
    if not taken:
        raise ConfigError("the model has no weight MatMul that could be rounded", where=model)
    scratch = Scratch(folder / ".weights", recipe.bits)
    try:
        rounds = Rounds(graph, taken, recipe, scratch)
        sampled = samples.fit and recipe.method != "rtn"
        made = rounds.by_samples(model, folder, samples) if sampled else rounds.to_nearest()
        steps = write(model, folder, taken, made, samples)
        drop = Loss(tuple(logits), samples.mask).of(model, folder, samples.held_out)
    finally:
        scratch.close()
    return {
        **table(sites, made.roundings, made.choices, recipe, keep, drop, apart),
        "steps": [asdict(step) for step in steps],
    }


def _taken(
    sites: Sequence[Site], keep: Sequence[str], head: bool, apart: Sequence[Layer]
) -> tuple[Site, ...]:
    """The sites, each with those of its layers that are rounded."""
    names = {layer.node for site in sites for layer in site.layers}
    names.update(layer.node for layer in apart)
    can_keep(keep, names, "weight MatMul")
    found = (
        replace(site, layers=tuple(each for each in site.layers if _wanted(each, keep, head)))
        for site in sites
    )
    return tuple(site for site in found if site.layers)


def _wanted(layer: Layer, keep: Collection[str], head: bool) -> bool:
    wide = layer.k >= MIN_DIM and layer.n >= MIN_DIM
    return layer.node not in keep and (not layer.refused or (head and wide))


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
