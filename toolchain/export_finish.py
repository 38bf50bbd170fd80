"""A traced graph made whole: pruned, its untrained outputs dropped, described, written, checked."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .. import ExportError
from ..deploy.signature import Signature, Tensor
from .export_components import Component
from .export_task import Target

MODEL = "model.onnx"


def prune(program: ir.Model) -> None:
    """Remove nodes and initializers that no output needs."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(program)


def drop_untrained(program: ir.Model, missing: Callable[[ir.Graph], list[str]]) -> list[str]:
    """Drop outputs that need weights absent from the checkpoint, but never the first; notes.

    A base model's pooler is such an output where the checkpoint was trained without one.
    """
    graph = program.graph
    absent = set(missing(graph))
    kept = [value for value in graph.outputs if not _needs(value, absent)]
    if not absent or not kept or kept[0] is not graph.outputs[0]:
        return []  # placing the weights will say which one is missing
    dropped = [value.name for value in graph.outputs if value not in kept]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    prune(program)
    return [f"{name} dropped: its weights are not in the checkpoint" for name in dropped]


def drop_unused_inputs(program: ir.Model) -> None:
    """Remove inputs that nothing reads: an engine would ask for them all the same."""
    inputs = program.graph.inputs
    kept = [value for value in inputs if value.uses() or value.is_graph_output()]
    inputs.clear()
    inputs.extend(kept)


def _needs(output: ir.Value, names: set[str]) -> bool:
    seen: set[int] = set()
    left = [output]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.name in names:
            return True
        node = value.producer()
        left += [one for one in (node.inputs if node else ()) if one is not None]
    return False


def signature(graph: ir.Graph, target: Target, component: Component, config: Any) -> Signature:
    """What io.json says of the graph."""
    names: Mapping[int, str] = getattr(config, "id2label", None) or {}
    labelled = "classification" in target.task and not target.task.startswith("zero-shot")
    used = {dim for value in graph.inputs for dim in _shape(value) if isinstance(dim, str)}
    return Signature(
        task=target.task,
        architecture=target.model_class.__name__,
        inputs=tuple(_tensor(value, component.pads) for value in graph.inputs),
        outputs=tuple(_tensor(value, {}) for value in graph.outputs),
        dims={name: bounds for name, bounds in component.bounds.items() if name in used},
        labels=tuple(names.values()) if labelled else (),
        padding_side=component.padding_side,
    )


def _tensor(value: ir.Value, pads: Mapping[str, int]) -> Tensor:
    name = value.name or ""
    dtype = (value.dtype or ir.DataType.FLOAT).numpy().name
    return Tensor(name=name, dtype=dtype, shape=_shape(value), role=name, pad=pads.get(name))


def _shape(value: ir.Value) -> tuple[int | str, ...]:
    dims = value.shape if value.shape is not None else ()
    return tuple(dim if isinstance(dim, int) else str(dim.value or "?") for dim in dims)


def write(program: ir.Model, folder: Path) -> None:
    """Write model.onnx, whose weights are already in files beside it, and check it.

    Raises:
        ExportError: the graph is not valid ONNX.
    """
    import onnx

    path = folder / MODEL
    program.producer_name = "llmdeploy"
    ir.save(program, path)
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise ExportError(
            f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}",
            where=path,
            mend="another --opset",
        ) from error
