"""float16 and bfloat16: the optimised graph cast where its measured ranges allow it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from ..calibration import forward
from ..deploy.backend import Feed
from ..passes import PassManager, load, save
from ..passes.half import Half
from .choosing import can_keep

KINDS: dict[str, Literal["float16", "bfloat16"]] = {"fp16": "float16", "bf16": "bfloat16"}
#: Tensors watched in one run of the statistics: what they hold is memory.
WATCHED = 64


def halve(
    model: Path, folder: Path, feeds: Sequence[Feed], *, precision: str, keep: Sequence[str]
) -> dict[str, Any]:
    """Fill `folder` with the graph in 16 bits; give what was cast, what was kept, and why.

    Raises:
        CalibrationError: the model cannot be executed on the feeds.
        ConfigError: a node in `keep` is none of the graph's.
        PassError: what was made is no sound graph.
    """
    graph = load(model)
    _known(graph, keep)
    ranges = magnitudes(model, floats(graph), feeds)
    half = Half(to=KINDS[precision], keep=tuple(keep), ranges=ranges)
    made, steps = PassManager([half], prove=False).run(graph)
    save(made, folder)
    kept = {rule: count for rule, count in steps[0].applications.items() if rule.startswith("kept")}
    notes = [f"{count} nodes {rule}" for rule, count in kept.items()]
    return {"steps": [asdict(step) for step in steps], "ranges": ranges, "notes": notes}


def _known(model: ir.Model, keep: Sequence[str]) -> None:
    """Refuse names of no node, nor of what one makes: what was to stay float would be cast."""
    nodes = list(model.graph.all_nodes())
    names = {node.name or node.op_type for node in nodes}
    names.update(value.name or "" for node in nodes for value in node.outputs)
    can_keep(keep, names, "node")


def floats(model: ir.Model) -> list[str]:
    """The float32 tensors that the main graph's nodes make."""
    values = (value for node in model.graph for value in node.outputs)
    return [value.name for value in values if value.name and value.dtype == ir.DataType.FLOAT]


def magnitudes(model: Path, tensors: Sequence[str], feeds: Sequence[Feed]) -> dict[str, float]:
    """The greatest finite magnitude of each tensor over the feeds; infinities are no range."""
    found = dict.fromkeys(tensors, 0.0)
    for part in _parts(tensors):
        for arrays in forward(model, part, feeds):
            for name, array in arrays.items():
                values = np.abs(array[np.isfinite(array)])
                found[name] = max(found[name], float(values.max(initial=0.0)))
    return found


def _parts(tensors: Sequence[str]) -> Iterator[Sequence[str]]:
    return (tensors[start : start + WATCHED] for start in range(0, len(tensors), WATCHED))
