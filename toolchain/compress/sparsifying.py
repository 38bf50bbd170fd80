"""The pass `sparsify` fitted to a model: each layer on what the layers before it now give."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ... import ConfigError
from ...calibration import one_thread
from ...calibration.moments import Moments
from ...calibration.sparsity import FOUR, sparse
from ...passes import load
from ...passes.infer import infer
from ...passes.refit import Refit, Refitted
from ...passes.sites import Layer, Site, find, weight_of
from ...passes.sparsify import Sparsify
from .sharing import sharing
from .shelf import Spill
from .subject import Subject
from .visiting import visit


def sparsify(
    subject: Subject, asked: Sparsify, scratch: Path | None = None
) -> tuple[ir.Model, dict[str, Any]]:
    """The model with its weights sparse, and what of it is told, layer by layer.

    Changed weights lie in `scratch` until the model is saved, in memory where there is none.

    Raises:
        ConfigError: no samples, or no layer that the pattern fits.
    """
    if not subject.fit:
        raise ConfigError("sparsify needs samples", where="[calibration] samples", mend="name some")
    model = load(subject.model)
    sites = [site for site in find(model) if site.inner]
    infer(model)
    layers = [each for site in sites for each in site.inner]
    odd = [each.node for each in layers if asked.pattern == "2:4" and each.k % FOUR]
    alone = dict.fromkeys(odd, "its inputs are no multiple of four") | sharing(model, sites)
    if not [each for each in layers if each.node not in alone]:
        raise ConfigError("the model has no weight that can be sparse", where=subject.model)
    told: list[dict[str, Any]] = []
    spill = Spill(scratch) if scratch else None

    def change(site: Site, seen: Moments) -> None:
        fitting = [each for each in site.inner if each.node not in alone]
        told.extend(_site(model, fitting, seen, asked))
        if spill:
            spill(model)

    with one_thread():
        visit(subject, model, sites, change)
    left = [{"node": node, "reason": reason} for node, reason in alone.items()]
    return model, {"sparse": told, "left_alone": left}


def _site(
    model: ir.Model, fitting: Sequence[Layer], seen: Moments, asked: Sparsify
) -> list[dict[str, Any]]:
    told, gram = list[dict[str, Any]](), seen.mean()
    made: dict[str, Refitted] = {}
    for layer in fitting:
        weight = weight_of(model, layer)
        new = sparse(gram, weight, seen.rows, asked.pattern, asked.ratio, asked.method)
        gone = weight.astype(np.float64) - new
        lost = float(np.sum(gone * (gram @ gone)))
        power = float(np.sum(weight * (gram @ weight))) or 1.0
        made[layer.node] = Refitted(new)
        told.append(_row(layer, new, lost / power, fours=asked.pattern == "2:4"))
    Refit(made)(model)
    return told


def _row(layer: Layer, new: Any, error: float, *, fours: bool) -> dict[str, Any]:
    """A layer's zeros, counted in what was made, and its error relative to its output's power."""
    checked = (
        bool(((new.reshape(-1, FOUR, layer.n) != 0).sum(axis=1) <= 2).all()) if fours else None
    )
    zeros = float((new == 0).mean())
    return {"node": layer.node, "zeros": zeros, "two_of_four": checked, "error": error}
