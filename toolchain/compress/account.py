"""What a fitted pass did, as the report shows a pass."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...passes import Step, load
from ...passes.sites import find
from ...passes.store import tensors


def units_gone(results: Mapping[str, Any]) -> dict[str, int]:
    """Of a pass that removed units, how many of each kind."""
    gone: dict[str, int] = {}
    for layer in results["layers"]:
        gone[layer["kind"]] = gone.get(layer["kind"], 0) + layer["units"] - layer["kept"]
    return gone


def stepped(
    name: str, before: Path, after: ir.Model, done: Mapping[str, int], seconds: float
) -> Step:
    """The step of a pass by what it counts."""
    old = load(before)
    return Step(
        name=name,
        modified=any(done.values()),
        nodes_before=len(old.graph),
        nodes_after=len(after.graph),
        bytes_before=_bytes(old),
        bytes_after=_bytes(after),
        applications=dict(done),
        max_error=None,
        seconds=seconds,
    )


def macs(path: Path) -> int:
    """Multiply-adds of a model's weight MatMuls, a row each: what its FLOPs grow with."""
    return sum(layer.k * layer.n for site in find(load(path)) for layer in site.layers)


def _bytes(model: ir.Model) -> int:
    return sum(tensor.nbytes for tensor in tensors(model))
