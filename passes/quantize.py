"""The pass `quantize`: INT8 or FP8 Q/DQ around weight MatMuls, as TensorRT wants it.

x -> QuantizeLinear(scale, int8 0) -> DequantizeLinear -> MatMul <- DequantizeLinear(int8 [k, n],
scale [n], int8 zeros [n], axis 1). Symmetric; one Q/DQ pair an activation; DQ feeds MatMul
directly; outputs and biases stay float. ONNX reads a missing zero point as uint8, so that it is
written out. FP8 is E4M3 in the place of int8; int16 activations no TensorRT takes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass as record
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass
from .linear import array_of, change_bias, drop_unused, initializer
from .opset import lift
from .sites import by_name, is_weighted, layer_of
from .splice import Names

#: Which layers share a Q/DQ pair: of one activation, by its scale and what it becomes.
Key = tuple[ir.Value, float, ir.DataType]
#: What Q and DQ take since opset 10; other floats and FP8 since 19, INT16 since 21.
_FIRST = {None, ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.UINT8}


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
            PassError: no weight MatMul or Gemm has that name, a scale is not positive, or the
                opset would have to be another in which an operator means something else.
        """
        nodes = {name: node for name, node in by_name(model).items() if is_weighted(node)}
        for name in self.layers:
            if name not in nodes:
                raise PassError(f"no weight MatMul called {name!r}", mend="calibrate again")
        named = {name: node for name, node in nodes.items() if name in self.layers}
        lift_for(model, named.values(), self.layers.values())
        names, pairs = Names(model), dict[Key, ir.Value]()
        for name, node in named.items():  # in order: the first that reads x makes its pair
            _quantize(model.graph, node, self.layers[name], pairs, names)
        drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(self.layers))


def lift_for(model: ir.Model, nodes: Iterable[ir.Node], layers: Iterable[Int8]) -> None:
    """Let a model be of an opset whose Q and DQ take what `nodes` read and `layers` are.

    Raises:
        PassError: an operator means something else there.
    """
    kinds = {value.dtype for node in nodes for value in node.inputs[:2] if value is not None}
    kinds |= {kind for each in layers for kind in (each.kind, each.weight.dtype)}
    opset = 21 if ir.DataType.INT16 in kinds else 19 if kinds - _FIRST else 10
    if model.opset_imports.get("", opset) < opset:
        lift(model)


def scale_of(layer: Int8, kind: np.dtype[Any]) -> NDArray[Any]:
    """An activation's scale [] in the graph's dtype; where that holds none so small its least
    normal one, whose inverse it holds as well.
    """
    scale = np.asarray(layer.scale).astype(kind)
    return scale if scale > 0 else np.asarray(ml_dtypes.finfo(kind).tiny, kind)


def steps_of(layer: Int8, kind: np.dtype[Any]) -> NDArray[Any]:
    """A weight's steps [n] in the graph's dtype; where that holds none so small its very least:
    the levels are made, and any other would stand for more.
    """
    return np.maximum(layer.steps.astype(kind), ml_dtypes.finfo(kind).smallest_subnormal)


def _quantize(
    graph: ir.Graph, node: ir.Node, layer: Int8, pairs: dict[Key, ir.Value], names: Names
) -> None:
    if not (layer.scale > 0 and (layer.steps > 0).all()):
        raise PassError(f"a scale of {node.name} is not positive", mend="calibrate again")
    shape = layer_of(node)
    if layer.offset is not None:
        offset = layer.offset
        change_bias(node, lambda b: b + offset, shape.n, "corrected")
    _dequantized_weight(graph, node, layer, names, turned=shape.transposed)
    source = node.inputs[0]
    assert source is not None
    key = (source, layer.scale, layer.kind)
    if key not in pairs:
        pairs[key] = _pair(graph, node, source, layer, names)
    node.replace_input_with(0, pairs[key])


def _pair(graph: ir.Graph, node: ir.Node, source: ir.Value, layer: Int8, names: Names) -> ir.Value:
    def called(part: str) -> str:
        return names.unique(f"{source.name}.{part}")

    kind = (source.dtype or ir.DataType.FLOAT).numpy()
    step = array_of(graph, scale_of(layer, kind), called("scale"))
    zero = array_of(graph, np.zeros((), layer.kind.numpy()), called("zero_point"))
    there = ir.node("QuantizeLinear", [source, step, zero], name=f"{node.name}.quantize")
    back = ir.node(
        "DequantizeLinear", [there.outputs[0], step, zero], name=f"{node.name}.dequantize"
    )
    made, out = there.outputs[0], back.outputs[0]
    made.name, made.shape = called("quantized"), source.shape
    made.type = ir.TensorType(layer.kind)
    out.name, out.shape, out.type = called("dequantized"), source.shape, source.type
    graph.insert_before(node, [there, back])
    return out


def _dequantized_weight(
    graph: ir.Graph, node: ir.Node, layer: Int8, names: Names, *, turned: bool
) -> None:
    def called(part: str) -> str:
        return names.unique(f"{node.name}.weight.{part}")

    old = node.inputs[1]
    assert old is not None
    axis, kind = (0 if turned else 1), (old.dtype or ir.DataType.FLOAT).numpy()
    dtype = layer.weight.dtype
    values = initializer(graph, layer.weight, called(dtype.name.lower()))
    steps = array_of(graph, steps_of(layer, kind), called("scale"))
    zeros = array_of(graph, np.zeros(layer.steps.shape, dtype.numpy()), called("zero_point"))
    back = ir.node(
        "DequantizeLinear",
        [values, steps, zeros],
        {"axis": axis},
        name=f"{node.name}.weight.dequantize",
    )
    out = back.outputs[0]
    out.name, out.shape, out.type = called("dequantized"), old.shape, old.type
    graph.insert_before(node, back)
    node.replace_input_with(1, out)
