"""transformers' own ONNX exporter, with named dimensions and one clear error."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir

from .. import ExportError
from .export_components import Component

_TRIES = 3
_WRAPPER = "model."  # what the traced module calls the transformers model
#: What tools like to read in a node: its module. Stack traces of our machine are not among it.
_KEPT = "pkg.torch.onnx.name_scopes"


def trace(component: Component, opset: int) -> ir.Model:
    """The component's graph with its dimension names, weights still in torch's tensors.

    Raises:
        ExportError: torch or ONNX cannot express the model.
    """
    program = _program(component, opset)
    _rename_dims(program.graph, component)
    for name, value in list(program.graph.initializers.items()):
        value.name = name.removeprefix(_WRAPPER)
    for node in program.graph.all_nodes():
        scopes = node.metadata_props.get(_KEPT)
        node.metadata_props.clear()
        if scopes:
            node.metadata_props[_KEPT] = scopes
    return program


def _program(component: Component, opset: int) -> ir.Model:
    from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes as refine
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    shapes: Any = _dynamic_shapes(component)
    for left in reversed(range(_TRIES)):
        config = OnnxConfig(
            dynamic=True,
            dynamic_shapes=shapes,
            optimize=False,
            opset_version=opset,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        try:
            module: Any = component.module
            return OnnxExporter().export(module, dict(component.inputs), config=config).program
        except Exception as error:
            advice = re.search(r"Suggested fixes:\n.*?(?=\n\n|\Z)", str(error), re.DOTALL)
            if left == 0 or advice is None:
                raise _explained(component, error) from error
            shapes = refine(advice[0], shapes)
    raise AssertionError  # the last try returned or raised


def _dynamic_shapes(component: Component) -> dict[str, Any]:
    from torch.export import Dim

    dims = {name: _dim(name, bounds.max) for name, bounds in component.bounds.items()}
    if "past" in dims:  # total = past + sequence: torch finds it, and a limit would bind each
        dims |= {"past": Dim("past"), "sequence": Dim("sequence"), "total": Dim.AUTO}
    shapes: dict[str, Any] = {}
    for name, value in component.inputs.items():
        axes = {axis: dims[dim] for axis, dim in component.dims.get(name, {}).items()}
        shapes[name] = [dict(axes) for _ in value] if isinstance(value, list) else axes
    return shapes


def _dim(name: str, most: int | None) -> Any:
    from torch.export import Dim

    return Dim(name, max=most) if most else Dim(name)


def _rename_dims(graph: ir.Graph, component: Component) -> None:
    names: dict[str, str] = {}
    for value in graph.inputs:
        argument = (value.name or "").split(".")[0]
        for axis, dim in component.dims.get(argument, {}).items():
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
    if text in ("past + sequence", "sequence + past"):
        return "total"
    return int(text) if text.isdigit() else text or None


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from node.outputs


def _explained(component: Component, error: Exception) -> ExportError:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
    text = "\n".join(str(one) for one in causes)
    operator = re.search(r"aten[.:]+[\w.]+|torchvision[.:]+[\w.]+", text)
    stack = re.findall(r"L\['self'\]\.([\w.\[\]']+)|name_scopes.*?'([\w.]+)'", text)
    where = f"{type(component.module).__name__}{'.' + ''.join(stack[-1]) if stack else ''}"
    reason = next((line.strip() for line in str(causes[-1]).splitlines() if line.strip()), "")
    at = f" at {operator[0]}" if operator else ""
    return ExportError(
        f"cannot be traced{at}: {type(causes[-1]).__name__}: {reason[:300]}",
        where=where,
        mend="try another --task or --opset, or a newer transformers",
    )
