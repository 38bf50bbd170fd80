"""An engine in pipeline stages for Triton: what each takes and gives, and where it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import BundleError, ConfigError
from .contents import Contents
from .pipeline import Pipeline
from .places import BACKEND, model_of
from .runtime import open_engine
from .signature import Signature, Tensor
from .triton_config import Options, batched

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Stage:
    """A stage's folder (model.onnx and engine.json), its arrays, and a first feed to warm it up."""

    folder: Path
    signature: Signature
    feed: Arrays


def stages(contents: Contents, options: Options, folder: Path) -> tuple[Stage, ...]:
    """Cut the engine into `options.stages`, below `folder`; they are run to see what they pass on.

    Raises:
        ConfigError: the engine is none that can be cut, or not into so many.
        BundleError: the stages do not give what the engine gave.
    """
    source = contents.engines[options.engine]
    model = model_of(source)
    if options.engine != BACKEND or contents.cut is None or model is None:
        raise ConfigError("only an ONNX Runtime engine of one graph is cut", mend="stages = 1")
    folders = contents.cut(model, options.stages, folder)
    pipeline = Pipeline([open_engine(folder / "model.onnx", 1) for folder in folders])
    whole = Signature.load(contents.assets)
    one, two = (_rows(contents.golden[0].feed, whole, count) for count in (1, 2))
    _prove(pipeline, source, two)
    traces = zip(folders, pipeline.traced(one), pipeline.traced(two), strict=True)
    return tuple(
        Stage(path, _signature(whole, small, large), small[0]) for path, small, large in traces
    )


def _rows(feed: Arrays, signature: Signature, count: int) -> Arrays:
    """A golden feed with so many rows, where the graph's first dimension is of rows."""
    if not batched(signature):
        return feed
    return {name: np.concatenate([array[:1]] * count) for name, array in feed.items()}


def _prove(pipeline: Pipeline, source: Path, feed: Arrays) -> None:
    """Hold the stages against the whole, on the same arrays: no bit may differ."""
    whole = open_engine(model_of(source) or source, 1)
    names = [each.name for each in whole.get_outputs()]
    results = zip(names, whole.run(names, dict(feed)), pipeline.run(names, feed), strict=True)
    bad = [name for name, wanted, given in results if wanted.tobytes() != given.tobytes()]
    if bad:
        what = f"the stages give other {', '.join(bad)} than the engine"
        raise BundleError(what, where=source, mend="stages = 1")


def _signature(whole: Signature, small: Sequence[Arrays], large: Sequence[Arrays]) -> Signature:
    """What a stage takes and gives, by its arrays of one row and of two."""
    rows = str(whole.inputs[0].shape[0]) if batched(whole) else ""
    inputs, outputs = (
        tuple(_tensor(name, array, more[name], rows) for name, array in arrays.items())
        for arrays, more in zip(small, large, strict=True)
    )
    return Signature(task=whole.task, inputs=inputs, outputs=outputs, dims=whole.dims)


def _tensor(name: str, one: NDArray[Any], two: NDArray[Any], rows: str) -> Tensor:
    """An array's description; its first dimension is of rows where it follows their number."""
    if not one.ndim:
        mend = "ask for another number of stages"
        raise ConfigError("Triton takes no scalar between stages", where=name, mend=mend)
    follows = rows and (len(one), len(two)) == (1, 2)
    others = (f"{name}.{place}" for place in range(1, one.ndim))
    shape = (rows if follows else f"{name}.0", *others)
    return Tensor(name=name, dtype=str(one.dtype), shape=shape, role=name)


def placed(options: Options, index: int) -> Options:
    """The options of one stage: its own device, host policy and number of instances, in turn."""
    gpus, counts = options.gpus, options.stage_instances
    policies = list(options.host_policies.items())
    update: dict[str, Any] = {
        "gpus": (gpus[index % len(gpus)],) if gpus else (),
        "host_policies": dict([policies[index % len(policies)]] if policies else []),
        "instances": counts[index % len(counts)] if counts else options.instances,
    }
    return options.model_copy(update=update)
