"""The stage `quantize` of a float graph of which the cache alone is int8."""

from pathlib import Path
from typing import Any

from ..passes import load, save
from .keeping import kept_as_int8
from .run import Run
from .sampled import sample_options, samples_of_cache
from .stages import each
from .versions import GRAPH, RUNTIME
from .workspace import Stage


def cached(run: Run, before: Stage) -> Stage:
    """The float graph with its cache as int8, in the place of the Q/DQ one."""

    def as_it_is(graph: str, out: Path) -> dict[str, Any]:
        save(load(run.folder(before.name, graph) / "model.onnx"), out)
        return {}

    return run.stage(
        "quantize",
        each(run, kept_as_int8(run, before, as_it_is)),
        inputs={before.name: before.digest, **samples_of_cache(run)},
        options={"precision": "fp32", "cache": "int8", **sample_options(run)},
        packages=(*GRAPH, *RUNTIME),
    )
