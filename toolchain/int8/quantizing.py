"""INT8 from a float graph: ranges from samples, then Q/DQ where it holds.

The doors of the stages `calibrate` and `quantize`; plain data joins calibration and passes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import ConfigError
from ...calibration import FORMATS, Feed, ranges
from ...passes import load
from ...passes.experts import experts
from ...passes.sites import find
from ..choosing import can_keep
from .calibrating import calibrate, digest_model
from .layers import round_layers
from .loss import Loss
from .search import Search
from .table import table

__all__ = ["calibrate", "quantize"]


def quantize(
    model: Path,
    calibrated: Path,
    folder: Path,
    *,
    precision: str = "int8",
    keep: Sequence[str] = (),
    max_drop: float = 0.01,
    paired: bool = False,
    feeds: Sequence[Feed] = (),
    mask: str | None = None,
    logits: Sequence[str] = (),
) -> dict[str, Any]:
    """Fill `folder` with the Q/DQ graph; give the layers, the share in INT8 and what it costs.

    As few multiply-adds as possible stay in float so that the outputs' loss on `feeds` (held out
    of the ranges) is no more than `max_drop`: 1 - the mean cosine with float's, or, of the outputs
    named in `logits`, the divergence from float's distribution. `paired` weights have products
    that fit in 16 bits two by two (`calibration.pairs`).

    Raises:
        ConfigError: ranges of another model, or a node in `keep` that is no weight MatMul.
    """
    if precision not in FORMATS:
        mend = f"use {', '.join(FORMATS)}"
        raise ConfigError(f"precision {precision} is not made by quantising", mend=mend)
    found = ranges.load(calibrated, digest_model(model))
    graph = load(model)
    all_sites, apart = find(graph), experts(graph)
    names = {layer.node for site in all_sites for layer in site.layers}
    names.update(layer.node for layer in apart)
    can_keep(keep, names, "weight MatMul")
    rounded = round_layers(model, found, folder / ".weights", precision, paired=paired)
    try:
        search = Search(model, found, rounded, Loss(tuple(logits), mask), feeds)
        result = search.run(folder, frozenset(keep), max_drop)
    finally:
        (folder / ".weights").unlink(missing_ok=True)
    return table(all_sites, found, rounded, result, frozenset(keep), precision, apart)
