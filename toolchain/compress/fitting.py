"""Each pass that needs samples, by its record: the model it makes, and what is told of it."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ... import MissingError
from ...deploy.backend import Backend
from ...passes import PassManager, Step, load
from ...passes.low_rank import LowRank
from ...passes.prune import Prune
from ...passes.recover import Recover
from ...passes.sparsify import Sparsify
from ...passes.vocabulary import Vocabulary
from ..narrowing import Narrowing
from .account import stepped, units_gone
from .factoring import factor
from .pruning import prune
from .sparsifying import sparsify
from .subject import Subject
from .vocabulary import vocabulary

#: Passes whose loss is bounded by a `max_drop` of theirs.
BOUNDED = (Prune, Sparsify, LowRank, Recover, Vocabulary)


@dataclass(frozen=True)
class Stand:
    """Where a pass stands: the dense subject, the model before it, and what that takes less.

    Weights that it changes lie in `scratch` until its model is saved, the state of a training in
    `training` until the stage is whole.
    """

    dense: Subject
    now: Subject
    backend: Backend
    narrowing: Narrowing = field(default_factory=Narrowing)
    scratch: Path | None = None
    training: Path | None = None


@dataclass(frozen=True)
class Fitted:
    """What a pass made: a model, what is told of it, what it counted, and what it narrowed."""

    model: ir.Model
    told: dict[str, Any]
    done: dict[str, int]
    narrowing: Narrowing = field(default_factory=Narrowing)


def fit(name: str, asked: ir.passes.PassBase, stand: Stand) -> tuple[Fitted, Step]:
    """Carry out one pass of the stage, fitted or plain."""
    started = time.perf_counter()
    if not isinstance(asked, BOUNDED):
        model, steps = PassManager([asked]).run(load(stand.now.model))
        return Fitted(model, {}, {}), steps[0]
    made = _fitted(asked, stand)
    seconds = time.perf_counter() - started
    return made, stepped(name, stand.now.model, made.model, made.done, seconds)


def _fitted(asked: Prune | Sparsify | LowRank | Recover | Vocabulary, stand: Stand) -> Fitted:
    now = stand.now
    if isinstance(asked, Prune):
        made = prune(now, asked, stand.backend, scratch=stand.scratch)
        return Fitted(made.model, made.results, units_gone(made.results), made.narrowing)
    if isinstance(asked, Sparsify):
        model, told = sparsify(now, asked, stand.scratch)
        return Fitted(model, told, {"layers sparse": len(told["sparse"])})
    if isinstance(asked, LowRank):
        model, told = factor(now, asked, stand.scratch)
        return Fitted(model, told, {"weights factored": len(told["factored"])})
    if isinstance(asked, Vocabulary):
        model, told, narrowing = vocabulary(now, asked)
        gone = told["vocabulary"]["before"] - told["vocabulary"]["after"]
        return Fitted(model, told, {"tokens": gone}, narrowing)
    try:
        from ..recovery.recovering import recover  # torch, which nothing else here needs
    except ImportError as error:
        raise MissingError(
            "recover needs torch", where=error.name, mend="pip install 'llmdeploy[export]'"
        ) from error
    model, told = recover(stand.dense, now.model, asked, stand.training, stand.narrowing)
    back = told["recovered"]["rolled_back"]
    return Fitted(model, told, {"weights trained": 0 if back else told["recovered"]["weights"]})
