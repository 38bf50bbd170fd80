"""The pass `quantize`: INT8 or FP8 Q/DQ around weight MatMuls, as TensorRT wants it.

x -> QuantizeLinear(scale, int8 0) -> DequantizeLinear -> MatMul <- DequantizeLinear(int8 [k, n],
scale [n], int8 zeros [n], axis 1). Symmetric; one Q/DQ pair an activation; DQ feeds MatMul
directly; outputs and biases stay float. ONNX reads a missing zero point as uint8, so that it is
written out. FP8 is E4M3 in the place of int8; int16 activations no TensorRT takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass as record
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass
from .linear import array_of, change_bias, drop_unused, initializer
from .sites import by_name, is_weighted, layer_of
from .weight_only import lift


@record(frozen=True)
class Int8:
    """What a layer becomes: x / `scale` rounded, a weight [k, n] with `steps` [n], float32.

    `offset` [n] is added to the bias: what the rounding costs on average. `kind` is what x
    becomes, INT8, INT16 or FLOAT8E4M3FN; the weight's dtype is its own.
    """

    scale: float
    weight: ir.TensorProtocol
    steps: NDArray[np.float32]
    offset: NDArray[np.float32] | None = None
    kind: ir.DataType = ir.DataType.INT8


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Quantize(Pass):
    """Puts Q/DQ before the layers that are named, each with its `Int8`."""

    layers: Mapping[str, Any]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Quantise every named layer.

        Raises:
            PassError: no weight MatMul or Gemm has that name, or a scale is not positive.
        """
        nodes, pairs = by_name(model), dict[tuple[str, float], ir.Value]()
        for name, layer in self.layers.items():
            node = nodes.get(name)
            if node is None or not is_weighted(node):
                raise PassError(f"no weight MatMul called {name!r}", mend="calibrate again")
            _quantize(model.graph, node, layer, pairs)
        if any(layer.kind == ir.DataType.INT16 for layer in self.layers.values()):
            lift(model)
        drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(self.layers))


def _quantize(
    graph: ir.Graph, node: ir.Node, layer: Int8, pairs: dict[tuple[str, float], ir.Value]
) -> None:
    if not (layer.scale > 0 and (layer.steps > 0).all()):
        raise PassError(f"a scale of {node.name} is not positive", mend="calibrate again")
    shape = layer_of(node)
    if layer.offset is not None:
        offset = layer.offset
        change_bias(node, lambda b: b + offset, shape.n, "corrected")
    _dequantized_weight(graph, node, layer, turned=shape.transposed)
    source = node.inputs[0]
    assert source is not None
    key = (source.name or "", layer.scale)
    if key not in pairs:
        pairs[key] = _pair(graph, node, source, layer)
    node.replace_input_with(0, pairs[key])


def _pair(graph: ir.Graph, node: ir.Node, source: ir.Value, layer: Int8) -> ir.Value:
    kind = (source.dtype or ir.DataType.FLOAT).numpy()
    step = array_of(graph, np.asarray(layer.scale).astype(kind), f"{source.name}.scale")
    zero = array_of(graph, np.zeros((), layer.kind.numpy()), f"{source.name}.zero_point")
    there = ir.node("QuantizeLinear", [source, step, zero], name=f"{node.name}.quantize")
    back = ir.node(
        "DequantizeLinear", [there.outputs[0], step, zero], name=f"{node.name}.dequantize"
    )
    made, out = there.outputs[0], back.outputs[0]
    made.name, made.shape = f"{source.name}.quantized", source.shape
    made.type = ir.TensorType(layer.kind)
    out.name, out.shape, out.type = f"{source.name}.dequantized", source.shape, source.type
    graph.insert_before(node, [there, back])
    return out


def _dequantized_weight(graph: ir.Graph, node: ir.Node, layer: Int8, turned: bool) -> None:
    old = node.inputs[1]
    assert old is not None
    axis, kind = (0 if turned else 1), (old.dtype or ir.DataType.FLOAT).numpy()
    name = f"{node.name}.weight"
    dtype = layer.weight.dtype
    values = initializer(graph, layer.weight, f"{name}.{dtype.name.lower()}")
    steps = array_of(graph, layer.steps.astype(kind), f"{name}.scale")
    zeros = array_of(graph, np.zeros(layer.steps.shape, dtype.numpy()), f"{name}.zero_point")
    back = ir.node(
        "DequantizeLinear",
        [values, steps, zeros],
        {"axis": axis},
        name=f"{name}.dequantize",
    )
    out = back.outputs[0]
    out.name, out.shape, out.type = f"{name}.dequantized", old.shape, old.type
    graph.insert_before(node, back)
    node.replace_input_with(1, out)
