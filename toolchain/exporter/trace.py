"""transformers' own ONNX exporter, with named dimensions and one clear error."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from ... import ExportError
from .blame import explain
from .components import Component
from .extend import extend, order
from .finish import prune
from .layers import UnlikeError
from .plan import named
from .stack import Stack, cut, shortened, stacks

_TRIES = 4
_ADVICE = re.compile(r"^\s+(\w+) = Dim\('\w+'(?:, min=(\d+))?(?:, max=(\d+))?\)$", re.MULTILINE)
#: Dimension -> least and greatest size, None where there is none.
Limits = dict[str, tuple[int | None, int | None]]
#: What tools like to read in a node: its module. Stack traces of our machine are not among it.
_KEPT = "pkg.torch.onnx.name_scopes"


def trace(component: Component, model: Any, opset: int, *, repeat: bool = True) -> ir.Model:
    """The component's graph with its dimension names, weights still in torch's tensors.

    Initializers are named as in `model`, which the component's module is part of. Like layers
    are traced a few times and repeated, unless `repeat` is off or they prove unlike.

    Raises:
        ExportError: torch or ONNX cannot express the model.
    """
    found = stacks(model, component.module) if repeat else []
    if found:
        try:
            return _repeated(component, model, opset, found)
        except (UnlikeError, ExportError):
            pass  # the whole trace decides
    return _named(component, {id(one): name for name, one in named(model)}, opset)


def _named(component: Component, names: Mapping[int, str], opset: int) -> ir.Model:
    program = _program(component, opset)
    _rename_dims(program.graph, component)
    inner = {name: names[id(one)] for name, one in named(component.module) if id(one) in names}
    for name, value in list(program.graph.initializers.items()):
        value.name = inner.get(name, name)
    for node in program.graph.all_nodes():
        scopes = node.metadata_props.get(_KEPT)
        node.metadata_props.clear()
        if scopes:
            node.metadata_props[_KEPT] = scopes
    prune(program)
    order(program.graph)
    return program


def _repeated(component: Component, model: Any, opset: int, found: list[Stack]) -> ir.Model:
    tensors = dict(named(model))
    names = {id(one): name for name, one in tensors.items()}
    with shortened(found):
        short = replace(component, inputs=cut(component.inputs, found))
        program = _named(short, names, opset)
    for stack in found:
        extend(program.graph, stack, tensors)
    order(program.graph)
    return program


def _program(component: Component, opset: int) -> ir.Model:
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    limits = _limits(component)
    module: Any = component.module
    for _ in range(_TRIES):
        config = OnnxConfig(
            dynamic=True,
            dynamic_shapes=_dynamic_shapes(component, limits),
            optimize=False,
            opset_version=opset,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        try:
            return OnnxExporter().export(module, dict(component.inputs), config=config).program
        except Exception as error:
            advised = _advised(limits, str(error))
            if advised == limits:
                raise explain(component.module, error) from error
            limits = advised
    raise ExportError(
        "torch finds no limits for the dynamic dimensions", where=type(component.module).__name__
    )


def _limits(component: Component) -> Limits:
    """The greatest size to trace each dimension for.

    A limit on `total` would bind past and sequence each, so a step with a past has none.
    """
    limits: Limits = {name: (None, bounds.max) for name, bounds in component.bounds.items()}
    if "past" in limits:
        return {**limits, "past": (None, None), "sequence": (None, None), "total": (None, None)}
    return limits


def _advised(limits: Limits, message: str) -> Limits:
    """The limits with what torch suggests, e.g. `past = Dim('past', max=62)`."""
    advised = dict(limits)
    for name, least, most in _ADVICE.findall(message):
        if name in advised:
            advised[name] = (int(least) if least else None, int(most) if most else None)
    return advised


def _dynamic_shapes(component: Component, limits: Limits) -> dict[str, Any]:
    from torch.export import Dim

    dims = {name: _dim(name, *limit) for name, limit in limits.items()}
    if "total" in dims:
        dims["total"] = Dim.AUTO  # past + sequence: torch finds it
    shapes: dict[str, Any] = {}
    for name, value in component.inputs.items():
        axes = {axis: dims[dim] for axis, dim in component.dims.get(name, {}).items()}
        shapes[name] = [dict(axes) for _ in value] if isinstance(value, list) else axes
    return shapes


def _dim(name: str, least: int | None, most: int | None) -> Any:
    from torch.export import Dim

    sizes = {"min": least, "max": most}
    return Dim(name, **{key: size for key, size in sizes.items() if size is not None})


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
