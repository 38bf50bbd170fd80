"""The stage `calibrate`: what INT8 must cover, from samples, by what it costs at the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ... import CalibrationError, ConfigError
from ...calibration import (
    Calibrated,
    Case,
    Choice,
    Feed,
    Freedom,
    Kept,
    Observer,
    Range,
    Seen,
    choose,
    covering,
    ranges,
    side_by_side,
)
from ...passes import load
from ...passes.sites import Site, find, weight_of
from .. import registry
from ..versions import versions
from ..workspace import digest_file, digest_of
from .collecting import coverage, statistics
from .presets import PRESETS, Preset
from .table import decibels

FEW = 32


def calibrate(
    model: Path,
    folder: Path,
    feeds: Sequence[Feed],
    *,
    mask: str | None,
    held_out: Sequence[Feed] = (),
    source: dict[str, Any] | None = None,
    method: str = "auto",
    preset: str = "balanced",
    seed: int = 0,
    precision: str = "int8",
) -> dict[str, Any]:
    """Fill `folder` with the ranges of an optimised model; give what `stage.json` shows.

    `mask` names the input whose zeros are padding, `preset` one of `PRESETS`. Ranges come from
    `feeds`; `held_out` decides between smoothing strengths and observers. Of a `precision` with
    values to spare at the ends, `auto` is min-max, and no outlier channel is taken out.

    Raises:
        ConfigError: no feeds, or feeds that do not fit the model; no such method.
        CalibrationError: an activation is NaN or Inf.
    """
    if not feeds:
        raise ConfigError("INT8 needs calibration samples", mend="name some in [calibration]")
    graph = load(model)
    places = [site for site in find(graph) if site.eligible]
    if not places:
        raise ConfigError("the model has no weight MatMul that INT8 could take", where=model)
    narrow = precision == "int8"
    method = method if narrow or method != "auto" else "min-max"
    observers = None if method == "auto" else {method: _observer(method)}
    choice = Choosing(graph, observers, PRESETS[preset], apart=narrow)
    found: dict[str, Range] = {}
    for seen, other in statistics(model, folder, feeds, held_out, places, mask=mask, seed=seed):
        sites = [site for site in places if site.tensor in seen]
        chosen = side_by_side(lambda s, a=seen, b=other: choice(s, a[s.tensor], b[s.tensor]), sites)
        here = {each.tensor: each for each in chosen}
        kept = {name: Kept.of(seen[name], other[name]) for name in here}
        ranges.save_vectors(here, kept, folder, part=len(found))
        found |= here
    described = {**(source or {}), **coverage([*feeds, *held_out], mask)}
    calibrated = Calibrated(
        model=digest_model(model),
        samples=described,
        method=method,
        seed=seed,
        versions=versions(("numpy", "onnxruntime", "onnx", "onnx-ir")),
        ranges=found,
        kept={},
    )
    ranges.save(calibrated, folder)
    return _summary(calibrated, places)


def _observer(name: str) -> Observer:
    return registry.find("observers", name)()


@dataclass(frozen=True)
class Choosing:
    """From what was seen of an activation to its range; `observers` None for all that are tried.

    `apart` is whether outlier channels may stay in float.
    """

    graph: ir.Model
    observers: Mapping[str, Observer] | None
    preset: Preset
    apart: bool = True

    def __call__(self, site: Site, seen: Seen, other: Seen) -> Range:
        """The range of an activation; `other` is of the held-out samples.

        Raises:
            CalibrationError: its squares, or its layers' outputs', are too large for float32.
        """
        for each in (seen, other):
            _check(site, each.variance)
        weights = [weight_of(self.graph, layer) for layer in site.eligible]
        case = Case.of(seen, other, weights, _freedom(self.graph, site, self.preset, self.apart))
        choice = covering(choose(case, self.observers), other)
        _check(site, (choice.amax, *choice.errors))
        return _range(site, choice, seen, other)


def _check(site: Site, figures: Any) -> None:
    if not np.isfinite(figures).all():
        raise CalibrationError(
            "activations are so large that their squares are not numbers",
            where=f"tensor {site.tensor}",
            mend="leave the sample out, or check the checkpoint",
        )


def _freedom(graph: ir.Model, site: Site, preset: Preset, apart: bool) -> Freedom:
    shared = any(len(graph.graph.initializers[each.weight].uses()) > 1 for each in site.eligible)
    fold = site.fold
    return Freedom(
        fold.shifts,
        fold.repeat,
        fold.width,
        smooth=not shared,
        apart=apart,
        scaling=preset.scaling(fold.kind),
        picking=preset.apart(fold.kind),
    )


def _range(site: Site, choice: Choice, seen: Seen, other: Seen) -> Range:
    histogram = seen.histogram
    return Range(
        tensor=site.tensor,
        choice=choice,
        layers=tuple(layer.node for layer in site.eligible),
        low=float(seen.low.min()),
        high=float(seen.high.max()),
        rows=seen.rows,
        dead=int(((seen.low == 0) & (seen.high == 0)).sum()),
        saturated=float(choice.cut_off(other.sample).mean()),
        histogram=tuple(int(n) for n in histogram.counts.reshape(64, -1).sum(axis=1)),
        histogram_width=histogram.width * len(histogram.counts) / 64,
    )


def digest_model(model: Path) -> str:
    """sha256 over a model's graph and every file of weights it names."""
    import onnx

    proto = onnx.load(model, load_external_data=False)
    names = {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [model, *(model.parent / name for name in sorted(names))]
    return digest_of([digest_file(file) for file in files])


def _summary(calibrated: Calibrated, places: Sequence[Site]) -> dict[str, Any]:
    samples = calibrated.samples
    rows = samples.get("count", samples.get("rows", 0))
    notes = (
        [f"only {rows} samples: give at least {FEW}, better some hundreds"] if rows < FEW else []
    )
    loose = [site.tensor for site in places if not site.tokens]
    if loose:
        notes.append(f"rows of {', '.join(loose[:4])} are no tokens: padding was not masked there")
    return {
        "samples": rows,
        "digest": samples.get("digest", ""),
        "texts": rows,
        "tokens": samples.get("tokens"),
        "coverage": samples,
        "method": calibrated.method,
        "notes": [*notes, *dead(calibrated)],
        "worst": worst(calibrated),
    }


def dead(calibrated: Calibrated) -> list[str]:
    """What is said of channels that were nothing but zero: INT8 cannot know how far they reach."""
    counts = {name: each.dead for name, each in calibrated.ranges.items() if each.dead}
    if not counts:
        return []
    first, count = max(counts.items(), key=lambda item: item[1])
    more = f" and of {len(counts) - 1} other activations" if len(counts) > 1 else ""
    return [f"{count} channels of {first}{more} are dead: zero for every token of the samples"]


def worst(calibrated: Calibrated, count: int = 8) -> list[dict[str, Any]]:
    """The layers whose outputs INT8 harms most on held-out samples, by signal to noise."""
    rows: list[dict[str, Any]] = [
        {
            "node": node,
            "snr_db": decibels(error),
            "smoothing": each.choice.strength,
            "learned": each.choice.learned,
            "outliers": len(each.choice.outliers),
            "observer": each.choice.observer,
            "saturated": each.saturated,
        }
        for each in calibrated.ranges.values()
        for node, error in zip(each.layers, each.choice.errors, strict=True)
    ]
    return sorted(rows, key=lambda row: row["snr_db"])[:count]
