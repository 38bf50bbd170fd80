"""The pass `low-rank` fitted to a model: ranks under one budget, then factors layer by layer."""

from pathlib import Path
from typing import Any

import onnx_ir as ir

from ... import ConfigError
from ...calibration import one_thread
from ...calibration.low_rank import Weight, factors, lost, ranks
from ...calibration.moments import Moments
from ...passes import load
from ...passes.factor import Factor, Thin
from ...passes.infer import infer
from ...passes.low_rank import LowRank
from ...passes.sites import Layer, Site, find, weight_of
from .sharing import sharing
from .shelf import Spill
from .subject import Subject
from .visiting import visit


def factor(
    subject: Subject, asked: LowRank, scratch: Path | None = None
) -> tuple[ir.Model, dict[str, Any]]:
    """The model with thin factors in the place of weights, and what of it is told.

    First the losses of all ranks of all weights, seen on the dense model; then, with the ranks
    chosen, each weight is factored on what the layers before it now give. Thin weights lie in
    `scratch` until the model is saved, in memory where there is none.

    Raises:
        ConfigError: no samples, or no weight that thin factors make smaller.
    """
    if not subject.fit:
        raise ConfigError("low-rank needs samples", where="[calibration] samples", mend="name some")
    model = load(subject.model)
    sites = [site for site in find(model) if site.inner]
    infer(model)
    alone = sharing(model, sites)
    known: dict[str, Weight] = {}
    told: list[dict[str, Any]] = []
    spill = Spill(scratch) if scratch else None

    def look(site: Site, seen: Moments) -> None:
        gram = seen.mean()
        for layer in (each for each in site.inner if each.node not in alone):
            weight = weight_of(model, layer)
            known[layer.node] = Weight(
                layer.k, layer.n, lost(gram, weight, seen.rows, asked.method)
            )

    def change(site: Site, seen: Moments) -> None:
        for layer in site.inner:
            if layer.node in chosen:
                told.append(_one(model, layer, seen, asked, chosen[layer.node]))
        if spill:
            spill(model)

    with one_thread():
        visit(subject, model, sites, look)
        chosen = ranks(known, asked.ratio, asked.multiple)
        if not chosen:
            raise ConfigError("no weight is smaller as two thin ones", where=subject.model)
        visit(subject, model, sites, change)
    before = sum(each.k * each.n for each in known.values())
    gone = sum(each["k"] * each["n"] - each["rank"] * (each["k"] + each["n"]) for each in told)
    left = [{"node": node, "reason": reason} for node, reason in alone.items()]
    return model, {"factored": told, "parameters_removed": gone / before, "left_alone": left}


def _one(model: ir.Model, layer: Layer, seen: Moments, asked: LowRank, rank: int) -> dict[str, Any]:
    made = factors(seen.mean(), weight_of(model, layer), seen.rows, asked.method)
    left, right = made.at(rank)
    Factor({layer.node: Thin(left, right)})(model)
    error = float(made.lost[rank])
    return {"node": layer.node, "k": layer.k, "n": layer.n, "rank": rank, "error": error}
