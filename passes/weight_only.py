"""The pass `weight-only`: int4, int8 or FP8 weights before the MatMuls that read them.

x @ w -> x @ DequantizeLinear(levels, steps). A step covers a block of K of one output (opset 21's
`block_size`), or a whole output. Activations stay as they are: memory is what is saved.
"""

from collections.abc import Mapping
from dataclasses import dataclass as record
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .facts import made_by
from .kinds import Pass
from .linear import array_of, initializer
from .opset import lift
from .sites import Layer, by_name, is_weighted, layer_of
from .weights import apply

Matrix = NDArray[np.float32]


@record(frozen=True)
class Blocks:
    """What a layer's weight becomes: levels [k, n], [n, k] where the layer is transposed, and
    steps [k / block, n], one row where `block` is 0; float32. `zeros` are the levels that stand
    for 0, shaped as the steps, None where all are 0: TensorRT takes no others.
    """

    levels: ir.TensorProtocol
    steps: Matrix
    block: int
    zeros: NDArray[np.int8] | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class WeightOnly(Pass):
    """Puts DequantizeLinear before the weights of the layers that are named, each its `Blocks`."""

    layers: Mapping[str, Any]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every named layer's weight; the opset becomes 21 where it was lower.

        Raises:
            PassError: no weight MatMul or Gemm has that name, a step is not positive, or an
                operator of the graph means something else in opset 21.
        """
        nodes = by_name(model)
        for name in self.layers:
            if name not in nodes or not is_weighted(nodes[name]):
                raise PassError(f"no weight MatMul called {name!r}", mend="quantise again")
        made: dict[int, ir.Value] = {}
        for name, node in nodes.items():  # in order: the first that reads a weight makes it
            if name in self.layers:
                _replace(model.graph, node, self.layers[name], made)
        if self.layers:
            lift(model)
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=bool(self.layers))


def _replace(graph: ir.Graph, node: ir.Node, blocks: Blocks, made: dict[int, ir.Value]) -> None:
    """Let a layer read what stands for its weight; layers that share `blocks` share that."""
    if id(blocks) not in made:
        made[id(blocks)] = _dequantized(graph, node, blocks)
    node.replace_input_with(1, made[id(blocks)])


def _dequantized(graph: ir.Graph, node: ir.Node, blocks: Blocks) -> ir.Value:
    if not (blocks.steps > 0).all():
        raise PassError(f"a step of {node.name} is not positive", mend="quantise again")
    old, turned = node.inputs[1], layer_of(node).transposed
    assert old is not None
    kind, name = (old.dtype or ir.DataType.FLOAT).numpy(), f"{node.name}.weight"
    values = initializer(graph, blocks.levels, f"{name}.{blocks.levels.dtype.name.lower()}")
    scale = array_of(graph, _lying(blocks.steps, blocks, turned).astype(kind), f"{name}.scale")
    inputs = [values, scale]
    if blocks.zeros is not None:
        zeros = np.ascontiguousarray(_lying(blocks.zeros, blocks, turned))
        tensor = ir.tensor(zeros, dtype=blocks.levels.dtype, name=f"{name}.zero_point")
        inputs.append(initializer(graph, tensor, f"{name}.zero_point"))
    axis = int(turned) if blocks.block else int(not turned)
    attributes = {"axis": axis} | ({"block_size": blocks.block} if blocks.block else {})
    back = ir.node("DequantizeLinear", inputs, attributes, name=f"{name}.dequantize")
    out = back.outputs[0]
    out.name, out.shape, out.type = f"{name}.dequantized", old.shape, old.type
    graph.insert_before(node, back)
    return out


def _lying(array: NDArray[Any], blocks: Blocks, turned: bool) -> NDArray[Any]:
    """What is [k / block, n] as it lies beside a weight."""
    rows = array if blocks.block else array[0]
    return rows.T if turned else rows


def matrix(node: ir.Node) -> Matrix:
    """A layer's weight as float32 [k, n], read from disk now; an embedding's too, turned."""
    value, turned = node.inputs[1], layer_of(node).transposed
    maker = made_by(value, "Transpose")
    if maker is not None:
        value, turned = maker.inputs[0], not turned
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    assert tensor is not None

    def copied(array: NDArray[Any]) -> Matrix:
        wide = array.T if turned else array
        return np.array(wide, np.float32, order="C", copy=True)

    return apply(tensor, copied)


def stored(layer: Layer, levels: NDArray[Any]) -> NDArray[Any]:
    """Levels [k, n] as the layer's weight lies."""
    return np.ascontiguousarray(levels.T if layer.transposed else levels)
