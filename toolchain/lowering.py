"""A neutral graph as a backend wants it, each pass of that held to what it promises."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .. import BuildError
from ..deploy.backend import Backend, Feed
from ..deploy.ort import OnnxRuntime
from ..passes import PassManager, load, save
from ..passes.ledger import Failure
from .feeds import parity_feeds
from .int8.search import few
from .narrowing import fitted
from .replay import Outputs, Probe
from .run import Run

#: Tokens that lowered places are compared on: each value of each of them is held in memory.
TOKENS = 128


def lower(
    run: Run, source: str, graph: str, backend: Backend, precision: str, aside: Path
) -> tuple[Path, list[dict[str, Any]]]:
    """Write the lowered graph of the stage `source` into `aside`; where, and its passes' steps.

    A pass that breaks the graph or its promise is rolled back: the graph is right without it. What
    ONNX Runtime's CPU cannot run (bfloat16, FP8) is checked by structure alone.

    Raises:
        PassError: the graph is not valid as it came.
        BuildError: the backend takes no graph of this opset.
    """
    passes, path = backend.lowering(precision), run.folder(source, graph) / "model.onnx"

    @cache  # nothing is drawn for passes that change nothing
    def feeds() -> Sequence[Feed]:
        drawn = fitted(run, source, graph, tuple(islice(parity_feeds(run, graph, count=2)[0], 2)))
        return [few(feed, TOKENS) for feed in drawn]

    def verify(model: ir.Model) -> Outputs:
        return Probe(feeds())(model)

    runs = precision in OnnxRuntime.precisions
    manager = PassManager(passes, verify if runs else None, on_failure="roll-back")
    model, steps = manager.run(load(path))
    _check_opset(model.opset_imports.get("", 0), backend, path)
    save(model, aside)
    return aside / "model.onnx", [asdict(step) for step in steps]


def left_out(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The passes that were rolled back and why, as a fact of the engine where there are any."""
    said = [
        f"{step['name']}: {Failure(**failure)}" for step in steps for failure in step["failures"]
    ]
    return {"left_out": said} if said else {}


def _check_opset(opset: int, backend: Backend, path: Path) -> None:
    least, greatest = backend.takes.opsets
    if not least <= opset <= greatest:
        what = f"opset {opset} is outside {least} to {greatest}, which {backend.name} takes"
        raise BuildError(what, where=path, mend="export with another [model] opset")
