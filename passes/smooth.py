"""The pass `smooth`: channels of activations scaled to one size, their weights scaled back.

(x - c) / s @ (s w) + (b + c w) = x @ w + b. SmoothQuant, arXiv 2211.10438; the shift is that of
Outlier Suppression+, arXiv 2304.09145.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .facts import is_constant
from .kinds import Pass
from .linear import array_of, change_bias, change_weight, drop_unused, has_bias, like
from .sites import Site, by_name, find, layer_of, weight_of

Vector = NDArray[np.float32]
Vectors = Mapping[str, Vector]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Smooth(Pass):
    """Scales the channels of activations by 1/s after shifting them by c, exactly.

    `scales` and `shifts` hold s and c [k] by the activation's name; a shift is optional. The
    scale goes into the norm, the gain or the earlier weight that makes the activation;
    else a Mul (and an Add) is put before the MatMuls that may be INT8. A scale of ones only shifts.
    """

    scales: Mapping[str, Any]
    shifts: Mapping[str, Any]

    contract: ClassVar[Contract] = Contract(
        "close", {"float32": 2e-4, "float16": 3e-2, "bfloat16": 2e-1}
    )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Scale every activation that is named.

        Raises:
            PassError: a named activation is not there, its vector is of another width, or what
                makes it cannot be shifted.
        """
        found = {site.tensor: site for site in find(model)}
        for name, scale in self.scales.items():
            if name not in found or found[name].layers[0].k != len(scale):
                raise PassError(
                    f"no activation {name!r} of {len(scale)} channels to smooth",
                    mend="calibrate this model again",
                )
            if name in self.shifts and found[name].fold.shifts == "none":
                raise PassError(f"{name!r} cannot be shifted", mend="calibrate this model again")
        for name, site in found.items():
            if name in self.scales:
                smooth_site(model, site, self.scales[name], self.shifts.get(name))
        drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(self.scales))


def smooth_site(model: ir.Model, site: Site, scale: Vector, shift: Vector | None) -> None:
    """Scale and shift one activation, and what reads it."""
    nodes = by_name(model)
    layers = [nodes[layer.node] for layer in site.eligible]
    if shift is not None:
        for layer in site.eligible:
            node = nodes[layer.node]  # its weight may be another by now: an earlier site's columns
            moved = shift.astype(np.float64) @ weight_of(model, layer_of(node))
            change_bias(node, lambda b, m=moved: b + m, layer.n, "shifted")
    if (scale != 1).any():
        for node in layers:
            change_weight(node, lambda w: w * scale[:, None], "smoothed")
    if site.fold.kind == "weight":
        _scale_columns(nodes[site.fold.node], _unrepeated(site, scale))
    elif site.fold.kind == "gain":
        _scale_gain(model.graph, nodes[site.fold.node], scale)
    elif site.fold.kind == "node":
        _insert(model.graph, layers, scale, shift)
    else:
        _scale_norm(model.graph, nodes[site.fold.node], layers, site, scale, shift)


def _unrepeated(site: Site, scale: Vector) -> Vector:
    """One scale a channel of the values, whose heads `repeat` query heads share."""
    fold = site.fold
    if fold.repeat == 1:
        return scale
    heads = scale.reshape(-1, fold.repeat, fold.width)
    if not (heads == heads[:, :1]).all():
        raise PassError(
            f"heads of {site.tensor} that share their values have different scales",
            mend="calibrate this model again",
        )
    return heads[:, 0].reshape(-1)


def _scale_columns(node: ir.Node, scale: Vector) -> None:
    change_weight(node, lambda w: w / scale, "divided")
    if has_bias(node):
        change_bias(node, lambda b: b / scale, len(scale), "divided")


def _scale_gain(graph: ir.Graph, node: ir.Node, scale: Vector) -> None:
    index = next(i for i, value in enumerate(node.inputs) if is_constant(value))
    gain = node.inputs[index]
    assert gain is not None
    node.replace_input_with(index, _changed(graph, gain, lambda g: g / scale))


def _scale_norm(
    graph: ir.Graph,
    norm: ir.Node,
    layers: list[ir.Node],
    site: Site,
    scale: Vector,
    shift: Vector | None,
) -> None:
    if site.fold.kind == "twin":
        norm = _twin(graph, norm, layers)
    gamma, beta = norm.inputs[1], norm.inputs[2] if len(norm.inputs) > 2 else None
    assert gamma is not None
    norm.replace_input_with(1, _changed(graph, gamma, lambda g: g / scale))
    if beta is None and shift is not None:
        beta = array_of(graph, like(gamma, np.zeros_like(scale)), f"{norm.name}.beta")
        norm.resize_inputs(3)
        norm.replace_input_with(2, beta)
    if beta is not None:
        offset = np.float32(0) if shift is None else shift
        norm.replace_input_with(2, _changed(graph, beta, lambda b: (b - offset) / scale))


def _changed(graph: ir.Graph, value: ir.Value, change: Any) -> ir.Value:
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    made = like(value, change(tensor.numpy().astype(np.float32)))
    return array_of(graph, made, f"{value.name}.smoothed")


def _twin(graph: ir.Graph, norm: ir.Node, layers: list[ir.Node]) -> ir.Node:
    """A second norm of the same input, for the layers that may be INT8."""
    old = norm.outputs[0]
    attributes = list(norm.attributes.values())
    twin = ir.Node(
        norm.domain,
        norm.op_type,
        norm.inputs,
        attributes,
        num_outputs=1,
        version=norm.version,
        name=f"{norm.name}.smoothed",
    )
    out = twin.outputs[0]
    out.name, out.shape, out.type = f"{old.name}.smoothed", old.shape, old.type
    graph.insert_after(norm, twin)
    for layer in layers:
        layer.replace_input_with(0, out)
    return twin


def _insert(graph: ir.Graph, layers: list[ir.Node], scale: Vector, shift: Vector | None) -> None:
    source = layers[0].inputs[0]
    assert source is not None
    steps: list[tuple[str, NDArray[Any]]] = []
    if (scale != 1).any():
        steps.append(("Mul", np.float32(1) / scale))
    if shift is not None:
        steps.append(("Add", _scalar(-shift / scale)))
    value = source
    for op, array in steps:
        made = array_of(graph, like(source, array), f"{source.name}.{op.lower()}")
        node = ir.node(op, [value, made], name=f"{layers[0].name}.smooth.{op}")
        out = node.outputs[0]
        out.name, out.shape, out.type = f"{source.name}.smoothed.{op}", source.shape, source.type
        graph.insert_before(layers[0], node)
        value = out
    for layer in layers:
        layer.replace_input_with(0, value)


def _scalar(array: Vector) -> Vector:
    """One number where all are the same: a backend can put it into its zero point."""
    same = np.ptp(array) <= 1e-6 * np.abs(array).max()
    return np.asarray(array.mean(dtype=np.float64), np.float32) if same else array
