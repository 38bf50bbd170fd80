"""Each pass that needs samples, by its record: the model it makes, and what is told of it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...deploy.backend import Backend
from ...passes import PassManager, Step, load
from ...passes.low_rank import LowRank
from ...passes.prune import Prune
from ...passes.recover import Recover
from ...passes.sparsify import Sparsify
from .account import stepped, units_gone
from .factoring import factor
from .pruning import prune
from .sparsifying import sparsify
from .subject import Subject

#: Passes whose loss is bounded by a `max_drop` of theirs.
BOUNDED = (Prune, Sparsify, LowRank, Recover)


@dataclass(frozen=True)
class Stand:
    """Where a pass stands: the dense subject, the model before it, and where its state may lie."""

    dense: Subject
    now: Subject
    backend: Backend
    training: Path | None = None


def fit(
    name: str, asked: ir.passes.PassBase, stand: Stand
) -> tuple[ir.Model, dict[str, Any], Step]:
    """Carry out one pass of the stage, fitted or plain."""
    started = time.perf_counter()
    if not isinstance(asked, BOUNDED):
        model, steps = PassManager([asked]).run(load(stand.now.model))
        return model, {}, steps[0]
    model, told, done = _fitted(asked, stand)
    seconds = time.perf_counter() - started
    return model, told, stepped(name, stand.now.model, model, done, seconds)


def _fitted(
    asked: Prune | Sparsify | LowRank | Recover, stand: Stand
) -> tuple[ir.Model, dict[str, Any], dict[str, int]]:
    now = stand.now
    if isinstance(asked, Prune):
        made = prune(now, asked, stand.backend)
        return made.model, made.results, units_gone(made.results)
    if isinstance(asked, Sparsify):
        model, told = sparsify(now, asked)
        return model, told, {"layers sparse": len(told["sparse"])}
    if isinstance(asked, LowRank):
        model, told = factor(now, asked)
        return model, told, {"weights factored": len(told["factored"])}
    from ..recovery.recovering import recover  # torch, which nothing else here needs

    model, told = recover(stand.dense, now.model, asked, stand.training)
    back = told["recovered"]["rolled_back"]
    return model, told, {"weights trained": 0 if back else told["recovered"]["weights"]}
