"""What is told of a graph whose weights are in few bits: each layer, the whole, and the cost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...calibration import Feed
from ...calibration.blockwise import fitting
from ...passes.sites import Layer, Site
from ..int8 import loss
from ..int8.table import decibels
from ..replay import replay
from .recipe import Choice, Recipe, Rounding

#: Held-out batches that the outputs are compared on, at most.
BATCHES = 4
#: A scale is of the graph's dtype, float32.
SCALE_BITS = 32
#: Words on the methods, for people.
WORDS = {
    "rtn": "to the nearest",
    "awq": "to the nearest, scales searched",
    "gptq": "compensated, scales fitted",
}


@dataclass(frozen=True)
class Loss:
    """What the rounding costs at the outputs, as `int8.loss.Loss` counts."""

    logits: tuple[str, ...]
    mask: str | None

    def of(self, model: Path, folder: Path, feeds: Sequence[Feed]) -> float | None:
        """The loss of the graph in `folder` against the float one; None without feeds."""
        if not feeds:
            return None
        count = loss.Loss(self.logits, self.mask)
        few = feeds[:BATCHES]
        before, after = (
            [count.kept(each) for each in replay(path, few, self.logits)]
            for path in (model, folder / "model.onnx")
        )
        return count(before, after, few)


def table(
    sites: Sequence[Site],
    roundings: Mapping[str, Rounding],
    choices: Mapping[str, Choice],
    recipe: Recipe,
    keep: Collection[str],
    drop: float | None,
    apart: Sequence[Layer] = (),
) -> dict[str, Any]:
    """Every weight MatMul: how its weight was rounded or why not, and its error.

    Those of no site, the experts' `apart`, are in float.
    """
    errors = [each.error or 0.0 for each in roundings.values()]
    total = sum(errors) or 1.0

    def row(layer: Layer, choice: Choice | None) -> dict[str, Any]:
        made = roundings.get(layer.node)
        return {
            "node": layer.node,
            "k": layer.k,
            "n": layer.n,
            "macs": layer.macs,
            "int8": made is not None,
            "reason": _reason(layer, keep) if made is None else "",
            **_told(layer, made, choice, recipe, total),
        }

    layers = [row(layer, choices.get(site.tensor)) for site in sites for layer in site.layers] + [
        row(layer, None) for layer in apart
    ]
    macs = sum(layer["macs"] for layer in layers) or 1
    share = sum(layer["macs"] for layer in layers if layer["int8"]) / macs
    return {
        "weight_share": round(share, 6),
        "method": recipe.method,
        "bits_per_weight": bits_per_weight(layers, recipe),
        "layers": layers,
        "drop_holdout": None if drop is None else round(drop, 6),
        "worst": worst(layers),
    }


def _told(
    layer: Layer, made: Rounding | None, choice: Choice | None, recipe: Recipe, total: float
) -> dict[str, Any]:
    if made is None:
        return dict.fromkeys(("bits", "block", "rounding", "smoothing", "snr_db", "error_share"))
    error = made.error
    return {
        "bits": recipe.bits,
        "block": fitting(layer.k, recipe.block) or layer.k,
        "rounding": WORDS[made.method],
        "smoothing": choice.power if choice is not None else None,
        "snr_db": None if error is None else decibels(error),
        "error_share": None if error is None else round(error / total, 6),
    }


def bits_per_weight(layers: Sequence[dict[str, Any]], recipe: Recipe) -> float:
    """What a rounded weight takes on average, with its share of float32 scales and zero points."""
    made = [layer for layer in layers if layer["int8"]]
    beside = SCALE_BITS + (recipe.bits if recipe.moved else 0)
    total = sum(layer["macs"] * (recipe.bits + beside / layer["block"]) for layer in made)
    return round(total / (sum(layer["macs"] for layer in made) or 1), 4)


def _reason(layer: Layer, keep: Collection[str]) -> str:
    return "kept by name" if layer.node in keep else layer.refused or "kept"


def worst(layers: Sequence[dict[str, Any]], count: int = 8) -> list[dict[str, Any]]:
    """The layers whose outputs rounding harms most on held-out samples, by signal to noise."""
    known = [layer for layer in layers if layer["snr_db"] is not None]
    rows = sorted(known, key=lambda layer: layer["snr_db"])[:count]
    return [{key: row[key] for key in ("node", "snr_db", "rounding", "smoothing")} for row in rows]
