"""Weight-only quantisation of a float graph: the door of the stage `quantize` for int4 and w8."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ... import ConfigError
from ...passes import load
from ...passes.sites import MIN_DIM, Layer, Site, find
from .recipe import Recipe
from .rounds import Samples
from .table import Loss, table
from .writing import Writer, Written

#: Bits of a weight, by precision.
BITS = {"int4": 4, "w8": 8}
#: Of `max-drop`, what eight bits may lose to the nearest before `auto` looks for better.
ENOUGH = 0.1
NEAR = "weights went to the nearest: the outputs lose {:.2g} so, and nothing better was looked for"


def quantize(
    model: Path,
    folder: Path,
    *,
    recipe: Recipe,
    samples: Samples,
    keep: Sequence[str] = (),
    head: bool = False,
    logits: Sequence[str] = (),
    max_drop: float = 0.01,
) -> dict[str, Any]:
    """Fill `folder` with the graph whose weights are in few bits; give what became of each layer.

    Weights are read, rounded and written one at a time. `head` takes the output head too. Eight
    bits by `auto` go to the nearest where the outputs lose less than a tenth of `max_drop` so.

    Raises:
        ConfigError: a node in `keep` that is no weight MatMul, or nothing that could be rounded.
        CalibrationError: the model gives NaN or Inf on the samples.
    """
    sites = find(load(model))
    taken = _taken(sites, keep, head)
    if not taken:
        raise ConfigError("the model has no weight MatMul that could be rounded", where=model)
    writer = Writer(model, folder, taken, Loss(tuple(logits), samples.mask), samples.held_out)
    made = _near(writer, recipe, samples, ENOUGH * max_drop)
    notes = [NEAR.format(made.drop)] if made is not None else []
    made = made or writer(recipe, samples)
    rounded = made.rounded
    return {
        **table(sites, rounded.roundings, rounded.choices, recipe, keep, made.drop),
        "steps": [asdict(step) for step in made.steps],
        "notes": notes,
    }


def _near(writer: Writer, recipe: Recipe, samples: Samples, enough: float) -> Written | None:
    """Eight bits to the nearest, where that loses no more than `enough`; else None.

    What errs less than that on each layer is nothing at the outputs, and takes many times as long
    to find.
    """
    if recipe.method != "auto" or recipe.bits != 8 or not samples.held_out:
        return None
    found = writer(replace(recipe, method="rtn"), Samples(samples.held_out, (), samples.mask))
    return found if found.drop is not None and found.drop <= enough else None


def _taken(sites: Sequence[Site], keep: Sequence[str], head: bool) -> tuple[Site, ...]:
    """The sites, each with those of its layers that are rounded."""
    names = {layer.node for site in sites for layer in site.layers}
    unknown = [name for name in keep if name not in names]
    if unknown:
        raise ConfigError(
            f"no weight MatMul called {unknown[0]!r}",
            where="[calibration] keep",
            mend="`llmdeploy inspect` shows their names",
        )
    found = (
        replace(site, layers=tuple(each for each in site.layers if _wanted(each, keep, head)))
        for site in sites
    )
    return tuple(site for site in found if site.layers)


def _wanted(layer: Layer, keep: Collection[str], head: bool) -> bool:
    wide = layer.k >= MIN_DIM and layer.n >= MIN_DIM
    return layer.node not in keep and (not layer.refused or (head and wide))
