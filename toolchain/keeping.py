"""A decoder's cache as int8: `[quantize] cache`, done to the graph of whatever precision.

Steps come from the float graph's own keys and values over the calibration samples; what is written
is io.json of the graph that takes levels, and narrowed.json, by which dense feeds are made to fit.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import ConfigError
from ..calibration.kept import Reach, Rounding
from ..deploy.signature import Signature
from ..passes import load
from ..passes.cache import Kept, QuantizeCache, held, refused
from ..passes.check import Facts, check
from .feeds import assets, calibration_feeds, logit_names, mask_name
from .feeds.rolling import PAST, PRESENT, keeps_cache
from .int8.cache import Compared, Watch, moved
from .int8.loss import Loss
from .narrowing import FILE, Narrowing, fitted, home
from .replacing import replace_model
from .run import Run
from .workspace import Stage

MODEL = "model.onnx"
Work = Callable[[str, Path], dict[str, Any]]
#: Held-out batches that the outputs are compared on, at most.
BATCHES = 4


def wanted(run: Run) -> bool:
    """Whether an int8 cache was asked for.

    Raises:
        ConfigError: the export keeps no cache, or is of several graphs.
    """
    if run.config.quantize.cache == "float":
        return False
    where, mend = "[quantize] cache", 'say cache = "float"'
    known = Signature.load(run.folder("export"))
    if known.components:
        what = "the cache of a decoder beside an encoder stays in float"
        raise ConfigError(what, where=where, mend=mend)
    if not keeps_cache(known):
        what = "the model keeps no cache of keys and values that could be int8"
        raise ConfigError(what, where=where, mend=mend)
    return True


def kept_as_int8(run: Run, before: Stage, work: Work) -> Work:
    """A stage's work on one graph, and then its cache as int8 where that is asked for.

    `before` is the stage of the float graph.
    """
    if not wanted(run):
        return work

    def both(graph: str, out: Path) -> dict[str, Any]:
        results = work(graph, out)
        told = _keep(run, before, graph, out)
        source = told.pop("source")  # where weights were rounded by samples it is known already
        return {**results, **({} if "digest" in results else source), "cache": told}

    return both


def _keep(run: Run, before: Stage, graph: str, out: Path) -> dict[str, Any]:
    """Make the graph in `out` take and give levels."""
    dense, known = run.folder(before.name, graph), Signature.load(home(run, before.name, graph))
    model, pairs = load(out / MODEL), _pairs(known)
    left = {past: why for past, each in pairs.items() if (why := refused(model.graph, past, each))}
    taken = {past: each for past, each in pairs.items() if past not in left}
    if not taken:
        past, why = next(iter(left.items()))
        mend = 'say [quantize] cache = "float"'
        raise ConfigError(f"{past} cannot be int8: {why}", where="[quantize] cache", mend=mend)
    feeds = calibration_feeds(run, graph)
    fit, other = (fitted(run, before.name, graph, each) for each in (feeds.fit, feeds.held_out))
    mask = mask_name(run, graph)
    found = Watch(dense / MODEL, tuple(taken.values()), mask, out)
    reach = found(moved(known, fit), lambda _: Reach())
    steps = {
        past: held(model.graph, past, each, reach[each].steps()) for past, each in taken.items()
    }
    sizes = {taken[past]: Rounding(each) for past, each in steps.items()}
    errors = found(other, lambda name: sizes[name])
    narrow = _narrowing(taken, steps)
    made = QuantizeCache(tensors={past: Kept(taken[past], each) for past, each in steps.items()})
    model = made(model).model
    check(model, Facts.of(model))
    loss = Compared(Loss(logit_names(run, graph), mask), other[:BATCHES], narrow)
    drop = loss(out / MODEL, model, out) if run.config.build.precision != "bf16" else None
    replace_model(model, out)
    _beside(home(run, before.name, graph), narrow, known, out)
    return {
        "bytes_per_token": _bytes(narrow.signature(known)),
        "bytes_per_token_float": _bytes(known),
        "left_alone": left,
        "drop": drop,
        "tensors": [
            {"tensor": past, "error": errors[each].error, "saturated": errors[each].saturated}
            for past, each in taken.items()
        ],
        "source": {
            "samples": feeds.source["count"],
            "texts": feeds.source["count"],
            "digest": feeds.source["digest"],
            "method": "min-max",
        },
    }


def _pairs(known: Signature) -> dict[str, str]:
    """Each input of the past and the output it grows to."""
    grown = {
        each.name: known.output(PRESENT + each.role.removeprefix(PAST))
        for each in known.inputs
        if each.role.startswith(PAST)
    }
    return {past: after.name for past, after in grown.items() if after is not None}


def _narrowing(taken: Mapping[str, str], steps: Mapping[str, Any]) -> Narrowing:
    """What the graph takes and gives as levels."""
    plain = {past: tuple(map(tuple, each.tolist())) for past, each in steps.items()}
    return Narrowing(steps=plain | {taken[past]: each for past, each in plain.items()})


def _beside(assets_of: Path, narrow: Narrowing, known: Signature, out: Path) -> None:
    """io.json of the graph, what it takes of dense feeds, and all else that is read with it."""
    for path in assets(assets_of):
        if path.name != FILE and not (out / path.name).exists():
            shutil.copy2(path, out / path.name)
    narrow.signature(known).save(out)
    narrow.save(out)


def _bytes(known: Signature) -> int:
    """What a token takes in the cache."""
    pasts = (each for each in known.inputs if each.role.startswith(PAST))
    return sum(
        int(each.shape[1]) * int(each.shape[3]) * np.dtype(each.dtype).itemsize for each in pasts
    )
