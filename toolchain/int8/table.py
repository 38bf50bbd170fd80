"""The table of layers that a quantised model is reported with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...calibration import Calibrated, Choice, Range
from ...passes.sites import Layer, Site
from .layers import Rounded
from .search import Result

#: What a layer in a precision is, in words.
WORDS = {"int8": "INT8", "fp8": "FP8", "w8a16": "INT8 by INT16"}
#: Of the multiply-adds, an output head's share that is worth a word.
MOST = 0.5
#: What is known of a layer that was calibrated.
MEASURED = ("smoothing", "learned", "outliers", "observer", "range", "snr_db", "error_share")


def decibels(error: float) -> float:
    """Signal to noise of a squared error that is relative to the signal's variance."""
    return round(float(-10 * np.log10(max(error, 1e-12))), 2)


def table(
    places: Sequence[Site],
    calibrated: Calibrated,
    rounded: Mapping[str, Rounded],
    result: Result,
    keep: frozenset[str],
    precision: str = "int8",
    apart: Sequence[Layer] = (),
) -> dict[str, Any]:
    """Every weight MatMul: INT8 or why not, and its error; the share of multiply-adds in INT8.

    Those of no site, the experts' `apart`, are in float: their multiply-adds count as well.
    """
    errors = {name: each.error for name, each in rounded.items()}
    total = sum(errors.values()) or 1.0

    def row(layer: Layer, each: Range | None, fold: str) -> dict[str, Any]:
        int8 = layer.node in rounded and layer.node not in result.kept
        return {
            "node": layer.node,
            "k": layer.k,
            "n": layer.n,
            "macs": layer.macs,
            "int8": int8,
            "format": WORDS[precision],
            "reason": _reason(layer, int8, keep),
            **_measured(each, errors.get(layer.node), total),
            "fold": fold,
            "rounding": _rounding(rounded.get(layer.node)),
        }

    layers = [
        row(layer, calibrated.ranges.get(site.tensor), site.fold.kind)
        for site in places
        for layer in site.layers
    ] + [row(layer, None, "none") for layer in apart]
    return {
        "int8_share": _share(layers),
        "layers": layers,
        "mean_cosine_holdout": _cosine(result),
        "sensitivity": {name: round(drop, 8) for name, drop in result.sensitivity.items()},
        "curve": [
            {"int8_share": _share([_without(layer, kept) for layer in layers]), "drop": drop}
            for kept, drop in result.curve
        ],
        "notes": [*_notes(result, calibrated), *_heads(places)],
    }


def _cosine(result: Result) -> float | None:
    """The mean cosine with float's outputs, None where the drop is none of one."""
    return None if result.drop is None or result.unsure else round(1 - result.drop, 6)


def _share(layers: Sequence[dict[str, Any]]) -> float:
    """The share of multiply-adds in INT8."""
    macs = sum(layer["macs"] for layer in layers) or 1
    return round(sum(_int8_macs(layer) for layer in layers) / macs, 6)


def _without(layer: dict[str, Any], kept: frozenset[str]) -> dict[str, Any]:
    """A layer as it is with those of `kept` in float, and INT8 wherever it may be otherwise."""
    return {**layer, "int8": layer["snr_db"] is not None and layer["node"] not in kept}


def _int8_macs(layer: dict[str, Any]) -> float:
    """Multiply-adds in INT8: outlier channels are not."""
    return (layer["k"] - (layer["outliers"] or 0)) * layer["n"] if layer["int8"] else 0


def _measured(each: Range | None, error: float | None, total: float) -> dict[str, Any]:
    if each is None or error is None:
        return dict.fromkeys(MEASURED)
    return {
        "smoothing": each.choice.strength,
        "learned": each.choice.learned,
        "outliers": len(each.choice.outliers),
        "observer": each.choice.observer,
        "range": _ends(each.choice),
        "snr_db": decibels(error),
        "error_share": round(error / total, 6),
    }


def _ends(choice: Choice) -> list[float]:
    """What INT8 covers: of the activation itself where it is but moved, else of it as smoothed."""
    only_moved = choice.scale is not None and choice.shift is not None and choice.strength is None
    middle = float(choice.shift[0]) if only_moved and choice.shift is not None else 0.0
    return [middle - choice.amax, middle + choice.amax]


def _rounding(rounded: Rounded | None) -> str | None:
    if rounded is None:
        return None
    return "nearest" if rounded.damping is None else f"compensated, damping {rounded.damping}"


def _reason(layer: Layer, int8: bool, keep: frozenset[str]) -> str:
    if int8:
        return ""
    if layer.refused:
        return layer.refused
    return "kept by name" if layer.node in keep else "kept in float to hold max-drop"


def _notes(result: Result, calibrated: Calibrated) -> list[str]:
    notes: list[str] = []
    if result.drop is None:
        notes.append("no held-out samples: the drop was not measured")
    elif result.unsure:
        notes.append(f"{result.unsure}: the drop, {result.drop:.3g}, is of their size")
    if result.sensitivity:
        notes.append(f"{len(result.kept)} layers kept in float to hold max-drop")
    return notes


def _heads(places: Sequence[Site]) -> list[str]:
    """What is said where most of the work stays in float: it is an output head's."""
    layers = [layer for site in places for layer in site.layers]
    total = sum(layer.k * layer.n for layer in layers)
    heads = [layer for layer in layers if layer.head and layer.refused]
    share = sum(layer.k * layer.n for layer in heads) / max(total, 1)
    if share < MOST:
        return []
    return [
        f"the output head, {share:.0%} of the multiply-adds, stays in float:"
        " [quantize] head = true makes it INT8 too"
    ]
