"""The pass `switch`: each layer INT8 or float by an input, to try many mixtures on one model."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .contract import Contract
from .kinds import Pass
from .linear import array_of, initializer, move
from .quantize import Int8, lift_for, scale_of, steps_of
from .sites import by_name, layer_of

PREFIX = "int8."


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Switch(Pass):
    """Makes a layer `If(int8.<node>, int8, float)`; the inputs it adds are booleans [].

    Both branches read the same weights from disk; one runs. The model is for trying, not to ship.
    """

    layers: Mapping[str, Any]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Make every named layer switchable."""
        nodes = by_name(model)
        lift_for(model, [nodes[name] for name in self.layers], self.layers.values())
        for name, layer in self.layers.items():
            _switch(model.graph, nodes[name], layer)
        return ir.passes.PassResult(model, modified=bool(self.layers))


def _switch(graph: ir.Graph, node: ir.Node, layer: Int8) -> None:
    asked = ir.Value(
        name=f"{PREFIX}{node.name}", shape=ir.Shape([]), type=ir.TensorType(ir.DataType.BOOL)
    )
    graph.inputs.append(asked)
    branches = {"then_branch": _int8(graph, node, layer), "else_branch": _float(node)}
    attributes = [ir.AttrGraph(name, branch) for name, branch in branches.items()]
    chosen = ir.Node("", "If", [asked], attributes, num_outputs=1, name=f"{node.name}.switch")
    old, new = node.outputs[0], chosen.outputs[0]
    new.shape, new.type = old.shape, old.type
    graph.insert_before(node, chosen)
    move(graph, old, new)
    name = old.name
    graph.remove(node, safe=True)
    new.name = name


def _float(node: ir.Node) -> ir.Graph:
    return _branch([_copy(node, node.inputs, "float")], f"{node.name}.float")


def _int8(graph: ir.Graph, node: ir.Node, layer: Int8) -> ir.Graph:
    name, shape, axis = node.name, layer_of(node), 0 if layer_of(node).transposed else 1
    kind = _kind(node)
    step = array_of(graph, scale_of(layer, kind), f"{name}.scale")
    zero = array_of(graph, np.zeros((), layer.kind.numpy()), f"{name}.zero_point")
    values = initializer(graph, layer.weight, f"{name}.narrow")
    steps = array_of(graph, steps_of(layer, kind), f"{name}.steps")
    there = ir.node("QuantizeLinear", [node.inputs[0], step, zero])
    back = ir.node("DequantizeLinear", [there.outputs[0], step, zero])
    weight = ir.node("DequantizeLinear", [values, steps], {"axis": axis})
    inputs = [back.outputs[0], weight.outputs[0], *node.inputs[2:]]
    nodes = [there, back, weight, _copy(node, inputs, "int8")]
    if layer.offset is not None:
        offset = array_of(graph, layer.offset.reshape(shape.n).astype(kind), f"{name}.offset")
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], offset]))
    return _branch(nodes, f"{name}.int8")


def _kind(node: ir.Node) -> np.dtype[Any]:
    """The dtype of a layer, its weight's: what it reads and gives is of the same."""
    weight = node.inputs[1]
    return ((weight.dtype if weight is not None else None) or ir.DataType.FLOAT).numpy()


def _copy(node: ir.Node, inputs: Any, suffix: str) -> ir.Node:
    attributes = list(node.attributes.values())
    name = f"{node.name}.{suffix}"
    return ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=1, name=name)


def _branch(nodes: list[ir.Node], name: str) -> ir.Graph:
    for index, node in enumerate(nodes):
        node.name = node.name or f"{name}.{index}"
        node.outputs[0].name = f"{name}.{index}.out"
    return ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, name=name)
