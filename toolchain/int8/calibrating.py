"""The stage `calibrate`: what INT8 must cover, from samples, by what it costs at the layers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ... import ConfigError
from ...calibration import (
    Calibrated,
    Case,
    Choice,
    Feed,
    Freedom,
    Kept,
    Range,
    Seen,
    Size,
    Watched,
    ahead,
    choose,
    collect,
    covering,
    forward,
    one_thread,
    ranges,
    side_by_side,
)
from ...passes import load
from ...passes.sites import Site, find, weight_of
from .. import registry
from ..versions import versions
from ..workspace import digest_file, digest_of
from .table import decibels

#: Rows kept of each activation, as far as this many bytes of float32 go, within these bounds.
SAMPLE_BYTES, LEAST_ROWS, MOST_ROWS = 64 << 20, 256, 1024
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
    seed: int = 0,
) -> dict[str, Any]:
    """Fill `folder` with the ranges of an optimised model; give what `stage.json` shows.

    `mask` names the input whose zeros are padding. Ranges come from `feeds`; `held_out` decides
    between smoothing strengths and observers.

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
    size = sample_size(places)
    seen = _collect(model, feeds, places, mask, size, seed)
    other = _collect(model, held_out or feeds, places, mask, size, seed)
    observers = None if method == "auto" else {method: registry.find("observers", method)()}

    def chosen(site: Site) -> Range:
        weights = [weight_of(graph, layer) for layer in site.eligible]
        case = Case.of(seen[site.tensor], other[site.tensor], weights, _freedom(graph, site))
        choice = covering(choose(case, observers), other[site.tensor])
        return _range(site, choice, seen[site.tensor], other[site.tensor])

    found = {each.tensor: each for each in side_by_side(chosen, places)}
    described = {**(source or {}), **coverage([*feeds, *held_out], mask)}
    calibrated = Calibrated(
        model=digest_model(model),
        samples=described,
        method=method,
        seed=seed,
        versions=versions(("numpy", "onnxruntime", "onnx", "onnx-ir")),
        ranges=found,
        kept={name: Kept.of(seen[name], other[name]) for name in found},
    )
    ranges.save(calibrated, folder)
    return _summary(calibrated, places)


def sample_size(places: Sequence[Site]) -> int:
    """How many rows are kept of each activation, from the bytes of one row of all."""
    row = sum(site.layers[0].k for site in places) * 4
    return int(np.clip(SAMPLE_BYTES // max(row, 1), LEAST_ROWS, MOST_ROWS))


def _collect(
    model: Path,
    feeds: Sequence[Feed],
    places: Sequence[Site],
    mask: str | None,
    size: int,
    seed: int,
) -> dict[str, Seen]:
    watched = [Watched(site.tensor, site.stream, site.tokens) for site in places]
    names = dict.fromkeys(name for each in watched for name in (each.tensor, each.stream) if name)
    runs = zip(ahead(forward(model, list(names), feeds)), _real(feeds, mask), strict=True)
    expected = coverage(feeds, mask).get("tokens", 0)
    with one_thread():
        return dict(collect(runs, watched, size=Size(size, expected=expected), seed=seed))


def _real(feeds: Sequence[Feed], mask: str | None) -> Iterator[NDArray[np.bool_] | None]:
    """Which tokens of each feed are real: the mask, its last columns where it covers a cache."""
    for feed in feeds:
        if mask is None or mask not in feed:
            yield None
            continue
        real = np.asarray(feed[mask]).astype(bool)
        width = feed["input_ids"].shape[1] if "input_ids" in feed else real.shape[-1]
        yield real[..., real.shape[-1] - width :]


def _freedom(graph: ir.Model, site: Site) -> Freedom:
    shared = any(len(graph.graph.initializers[each.weight].uses()) > 1 for each in site.layers)
    fold = site.fold
    return Freedom(fold.shifts, fold.repeat, fold.width, smooth=not shared)


def _range(site: Site, choice: Choice, seen: Seen, other: Seen) -> Range:
    beyond = np.abs(choice.apply(other.sample)) > choice.amax
    beyond[:, list(choice.outliers)] = False
    histogram = seen.histogram
    return Range(
        tensor=site.tensor,
        choice=choice,
        layers=tuple(layer.node for layer in site.eligible),
        low=float(seen.low.min()),
        high=float(seen.high.max()),
        rows=seen.rows,
        saturated=float(beyond.mean()),
        histogram=tuple(int(n) for n in histogram.counts.reshape(64, -1).sum(axis=1)),
        histogram_width=histogram.width * len(histogram.counts) / 64,
    )


def coverage(feeds: Sequence[Feed], mask: str | None) -> dict[str, Any]:
    """Tokens, their distinct ids and the lengths of the samples, padding left out."""
    real = list(_real(feeds, mask))
    ids = [np.asarray(feed["input_ids"]) for feed in feeds if "input_ids" in feed]
    if len(ids) != len(feeds):
        return {"rows": sum(len(next(iter(feed.values()))) for feed in feeds)}
    kept = [np.ones(a.shape, bool) if r is None else r for a, r in zip(ids, real, strict=True)]
    lengths = np.concatenate([each.sum(axis=1) for each in kept])
    distinct = np.unique(np.concatenate([a[r] for a, r in zip(ids, kept, strict=True)]))
    return {
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "distinct_ids": len(distinct),
        "lengths": [int(q) for q in np.quantile(lengths, (0, 0.25, 0.5, 0.75, 1))],
    }


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
        "notes": notes,
        "worst": worst(calibrated),
    }


def worst(calibrated: Calibrated, count: int = 8) -> list[dict[str, Any]]:
    """The layers whose outputs INT8 harms most on held-out samples, by signal to noise."""
    rows: list[dict[str, Any]] = [
        {
            "node": node,
            "snr_db": decibels(error),
            "smoothing": each.choice.strength,
            "observer": each.choice.observer,
            "saturated": each.saturated,
        }
        for each in calibrated.ranges.values()
        for node, error in zip(each.layers, each.choice.errors, strict=True)
    ]
    return sorted(rows, key=lambda row: row["snr_db"])[:count]
