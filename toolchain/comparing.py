"""`llmdeploy diff` of two graphs: operators, weights, and the first tensor where they part."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .. import ConfigError, ParityError
from ..deploy.signature import FILE
from ..passes import load
from .feeds.drawing import draw
from .referenced import weights_of
from .run import Run

MODEL = "model.onnx"
#: Above this relative error two tensors differ; rounding alone stays well below.
LIMIT = 1e-4


def graph_at(path: Path) -> Path | None:
    """The ONNX file at a path: itself, or the model of a stage's folder; None where none is."""
    if path.is_file():
        return path if path.suffix == ".onnx" else None
    return path / MODEL if (path / MODEL).is_file() else None


def pairs(before: Path, after: Path) -> list[tuple[str, Path, Path]]:
    """Graphs to compare, by name; a stage of several graphs gives one pair a graph.

    Raises:
        ConfigError: one of the paths holds no graph.
    """
    one, two = graph_at(before), graph_at(after)
    if one and two:
        return [("", one, two)]
    folders = sorted(path for path in before.glob("*/") if graph_at(path))
    found = [(path.name, graph_at(path), graph_at(after / path.name)) for path in folders]
    both = [(name, first, second) for name, first, second in found if first and second]
    if not both:
        lacking = before if one is None and not folders else after
        mend = "give two stages, two ONNX files, or two workspaces in which `verify` ran"
        raise ConfigError("neither a report nor an ONNX graph there", where=lacking, mend=mend)
    return both


def facts(path: Path) -> Iterator[tuple[tuple[str, str], Any]]:
    """What of a graph is compared: nodes by operator, and each weight by shape, type and bytes."""
    model = load(path, weights_of(path.parent))
    counts = Counter(node.op_type for node in model.graph.all_nodes())
    for name, count in sorted(counts.items()):
        yield ("operators", name), count
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            yield ("weights", name), _weight(value.const_value)


def _weight(tensor: ir.TensorProtocol) -> str:
    digest = hashlib.sha256(tensor.tobytes()).hexdigest()[:12]
    return f"{tensor.dtype.name}{list(tensor.shape.numpy())} {digest}"


def parting(before: Path, after: Path, run: Run | None, name: str) -> dict[str, Any]:
    """Where the second graph's tensors part from the first's for good, and on what that was run.

    On the workspace's parity feeds where the graphs are of it, else on a seeded draw of what the
    io.json beside the first says; without one nothing is run, and that is said.
    """
    from ..deploy.bisect import diverge

    feed, what = _feed(before, run, name)
    if weights_of(before.parent) or weights_of(after.parent):
        feed, what = None, "nothing was run: weights of one graph were left in its checkpoint"
    if feed is None:
        return {"tensor": None, "reason": what}
    try:
        found = diverge(before, after, feed, LIMIT)
    except ParityError as error:
        return {"tensor": None, "reason": str(error)}
    if found is None:
        return {"tensor": None, "reason": f"no tensor differs by more than {LIMIT} on {what}"}
    return {
        "tensor": found.tensor,
        "node": found.node,
        "error": found.error,
        "reason": f"on {what}; {found.differing} of {found.compared} shared tensors differ",
    }


def _feed(before: Path, run: Run | None, name: str) -> tuple[Any, str]:
    from .feeds import parity_feeds

    if run is not None:
        feeds, what = parity_feeds(run, name, count=2)
        return next(feeds), what
    if (before.parent / FILE).is_file():
        return draw(before.parent, 0)[0], "a feed drawn with seed 0"
    return None, "nothing was run: no io.json beside the first graph says what it takes"
