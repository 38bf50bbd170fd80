"""transformers' own ONNX exporter, with named dimensions and one clear error."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir

from .. import ExportError
from ..deploy.signature import Bounds
from .export_inputs import Example

_TRIES = 3
#: What tools like to read in a node: its module. Stack traces of our machine are not among it.
_KEPT = "pkg.torch.onnx.name_scopes"


def trace(model: Any, example: Example, opset: int) -> ir.Model:
    """The model's graph with the example's dimension names, weights still in torch's tensors.

    Raises:
        ExportError: torch or ONNX cannot express the model.
    """
    program = _program(model, example, opset)
    _rename_dims(program.graph, example)
    for node in program.graph.all_nodes():
        scopes = node.metadata_props.get(_KEPT)
        node.metadata_props.clear()
        if scopes:
            node.metadata_props[_KEPT] = scopes
    return program


def _program(model: Any, example: Example, opset: int) -> ir.Model:
    from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes as refine
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    shapes: Any = _dynamic_shapes(example)
    for left in reversed(range(_TRIES)):
        config = OnnxConfig(
            dynamic=True,
            dynamic_shapes=shapes,
            optimize=False,
            opset_version=opset,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        try:
            inputs = {**example.inputs, **example.flags}
            return OnnxExporter().export(model, inputs, config=config).program
        except Exception as error:
            if left == 0 or "Suggested fixes:" not in str(error):
                raise _explained(model, error) from error
            shapes = refine(str(error), shapes)
    raise AssertionError  # the last try returned or raised


def _dynamic_shapes(example: Example) -> dict[str, dict[int, Any]]:
    from torch.export import Dim

    dims = {
        name: Dim(name, max=bounds.max) if bounds.max else Dim(name)
        for name, bounds in example.bounds.items()
    }
    return {
        name: {axis: dims[dim] for axis, dim in axes.items()} for name, axes in example.dims.items()
    }


def _rename_dims(graph: ir.Graph, example: Example) -> None:
    names: dict[str, str] = {}
    for value in graph.inputs:
        for axis, dim in example.dims.get(value.name or "", {}).items():
            symbol = value.shape[axis] if value.shape is not None else None
            if isinstance(symbol, ir.SymbolicDim) and symbol.value is not None:
                names[str(symbol.value)] = dim
    for value in _values(graph):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _renamed(dim: Any, names: Mapping[str, str]) -> int | str | None:
    if isinstance(dim, int):
        return dim
    text = "" if dim.value is None else str(dim.value)
    text = re.sub(r"[A-Za-z_]\w*", lambda found: names.get(found[0], found[0]), text)
    return int(text) if text.isdigit() else text or None


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from node.outputs


def _explained(model: Any, error: Exception) -> ExportError:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
    text = "\n".join(str(one) for one in causes)
    operator = re.search(r"aten[.:]+[\w.]+|torchvision[.:]+[\w.]+", text)
    stack = re.findall(r"L\['self'\]\.([\w.\[\]']+)|name_scopes.*?'([\w.]+)'", text)
    where = f"{type(model).__name__}{'.' + ''.join(stack[-1]) if stack else ''}"
    reason = next((line.strip() for line in str(causes[-1]).splitlines() if line.strip()), "")
    at = f" at {operator[0]}" if operator else ""
    return ExportError(
        f"cannot be traced{at}: {type(causes[-1]).__name__}: {reason[:300]}",
        where=where,
        mend="try another --task or --opset, or a newer transformers",
    )


def bounds_of(example: Example) -> dict[str, Bounds]:
    """The bounds of the example's named dimensions."""
    return dict(example.bounds)
