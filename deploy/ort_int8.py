"""Lower Q/DQ around MatMul and Gemm to ONNX Runtime's integer kernels, with the same numbers.

The neutral graph is symmetric and signed, as TensorRT wants it. ONNX Runtime's fast CPU kernels
take unsigned activations, so that q becomes q + 128 with zero point 128: the same grid, clamped
at the same places. Weights become unsigned as well (`ort_unsigned`).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

from .backend import CLOSE, Promise
from .graph import array, constant, insert, integer, made_by, only_use, replace, scalar, spread
from .ort_unsigned import dtype_of, unsigned

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Activation:
    """A quantised activation as uint8: what is quantised, its scale (one) and its zero point.

    `shift` is what quantising adds beside `zero`: steps that an Add of a constant moved it by.
    """

    source: ir.Value
    scale: ir.Value
    zero: int
    shift: int


@dataclass(frozen=True)
class Weight:
    """A quantised weight: [K, N] or turned, its scale [N] or [], zero point, and bias [N]."""

    values: ir.Value
    turned: bool
    scale: ir.Value
    zero: ir.Value | None
    bias: ir.Value | None


@dataclass
class Shared:
    """What a graph needs once: zero points, weights, one QuantizeLinear a tensor and scale."""

    zeros: dict[int, ir.Value] = field(default_factory=dict[int, ir.Value])
    quantized: dict[tuple[int, float | None, int], ir.Value] = field(
        default_factory=dict[tuple[int, float | None, int], ir.Value]
    )
    weights: dict[tuple[int, bool], ir.Value] = field(
        default_factory=dict[tuple[int, bool], ir.Value]
    )


class IntegerMatMul(ir.passes.InPlacePass):
    """`DQ(Q(x)) @ DQ(w) [+ b]` becomes com.microsoft `MatMulIntegerToFloat`, float32 out."""

    contract: ClassVar[Promise] = CLOSE

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower every such MatMul and Gemm of the main graph; QuantizeLinears are shared."""
        shared = Shared()
        count = sum(_lower(model.graph, node, shared) for node in list(model.graph))
        if count:
            model.opset_imports.setdefault(MICROSOFT, 1)
            RemoveUnusedNodesPass()(model)
            TopologicalSortPass()(model)  # a bias may be made after the product that takes it
        return ir.passes.PassResult(model, modified=count > 0)


def _lower(graph: ir.Graph, node: ir.Node, shared: Shared) -> bool:
    if node.domain or node.op_type not in ("MatMul", "Gemm") or not _plain(node):
        return False
    activation, weight = _activation(node.inputs[0]), _weight(node)
    if activation is None or weight is None:
        return False
    last = node if weight.bias is None else _adder(node)
    inputs = [
        _quantized(graph, node, activation, shared),
        levels := _unsigned(graph, weight, shared),
        activation.scale,
        weight.scale,
        _zero(graph, activation.zero, shared),
        _weight_zero(graph, weight, levels, shared),
        weight.bias,
    ]
    out = last.outputs[0]
    name = f"{out.name}.integer"
    new = insert(node, "MatMulIntegerToFloat", inputs, name=name, domain=MICROSOFT, like=out)
    replace(out, new)
    return True


def _plain(node: ir.Node) -> bool:
    """Whether a Gemm is no more than `x @ w + b`, w transposed or not."""
    if node.op_type == "MatMul":
        return True
    factors = (node.attributes.get(name) for name in ("alpha", "beta"))
    ones = all(factor is None or factor.as_float() == 1.0 for factor in factors)
    return ones and integer(node, "transA", 0) == 0


def _activation(value: ir.Value | None) -> Activation | None:
    back = made_by(value, "DequantizeLinear")
    there = made_by(back.inputs[0], "QuantizeLinear") if back else None
    if back is None or there is None:
        return None
    source, scale = there.inputs[0], there.inputs[1]
    kind, zeros = _kind(there), (_zero_point(there), _zero_point(back))
    step = constant(scale)
    if source is None or scale is None or step is None or step.dtype != np.float32:
        return None
    if step.size != 1 or scalar(back.inputs[1]) != scalar(scale) or zeros[0] != zeros[1]:
        return None
    if zeros[0] is None or kind not in ("int8", "uint8"):
        return None
    zero = zeros[0] + (128 if kind == "int8" else 0)
    return _shifted(Activation(source, scale, zero, 0))


def _shifted(activation: Activation) -> Activation:
    """Quantise x with zero point z + k in place of x + k * scale with z: the same integers.

    But for an x midway between two steps where k is odd: of two as near, it takes the other.
    """
    added = made_by(activation.source, "Add")
    step = scalar(activation.scale)
    if added is None or not step or len(activation.source.uses()) > 1:
        return activation
    for x, moved in (added.inputs, reversed(added.inputs)):
        by = spread(moved, x)
        steps = by / step if by is not None else 0.5
        shift = round(steps)
        if x is not None and abs(steps - shift) < 1e-3 and 0 <= activation.zero + shift <= 255:
            return Activation(x, activation.scale, activation.zero, shift)
    return activation


def _zero_point(node: ir.Node) -> int | None:
    """The zero point of a Q or DQ, 0 when it is left out, None when it is not one number."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is None:
        return 0
    number = scalar(given)
    return None if number is None else int(number)


def _kind(node: ir.Node) -> str:
    """What a QuantizeLinear makes; ONNX says uint8 where neither zero point nor dtype does."""
    given = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if given is not None:
        return given.dtype.name
    stated = integer(node, "output_dtype", 0)
    return ir.DataType(stated).name.lower() if stated else "uint8"


def _weight(node: ir.Node) -> Weight | None:
    """The constant weight of a MatMul or Gemm; its scale is per column or per tensor."""
    back = made_by(node.inputs[1], "DequantizeLinear")
    values = constant(back.inputs[0]) if back else None
    if (
        back is None
        or values is None
        or values.ndim != 2
        or values.dtype.name not in ("int8", "uint8")
    ):
        return None
    source, scale, steps = back.inputs[0], back.inputs[1], constant(back.inputs[1])
    turned = node.op_type == "Gemm" and integer(node, "transB", 0) == 1
    column = 0 if turned else 1
    if source is None or scale is None or steps is None or steps.dtype != np.float32:
        return None
    if steps.ndim > 1 or steps.size not in (1, values.shape[column]):
        return None
    if steps.size > 1 and integer(back, "axis", 1) % 2 != column:
        return None
    zero, added = (each.inputs[2] if len(each.inputs) > 2 else None for each in (back, node))
    computed = zero is not None and constant(zero) is None
    if computed or (added is not None and not _is_vector(added, values.shape[column])):
        return None
    return Weight(source, turned, scale, zero, added or _bias(node, values.shape[column]))


def _bias(node: ir.Node, columns: int) -> ir.Value | None:
    """The constant [N] that an Add and nothing else after a MatMul adds."""
    after = _adder(node)
    if after is node:
        return None
    other = after.inputs[1 if after.inputs[0] is node.outputs[0] else 0]
    return other if _is_vector(other, columns) else None


def _adder(node: ir.Node) -> ir.Node:
    """The Add that alone reads a MatMul's output, else the node itself."""
    after = only_use(node.outputs[0]) if node.op_type == "MatMul" else None
    return after if after is not None and after.op_type == "Add" and not after.domain else node


def _is_vector(value: ir.Value | None, columns: int) -> bool:
    values = constant(value)
    return values is not None and values.shape == (columns,) and values.dtype == np.float32


def _quantized(graph: ir.Graph, node: ir.Node, activation: Activation, shared: Shared) -> ir.Value:
    point = activation.zero + activation.shift
    key = (id(activation.source), scalar(activation.scale), point)
    if key not in shared.quantized:
        name = f"{activation.source.name}.quantized.{len(shared.quantized)}"
        inputs = [activation.source, activation.scale, _zero(graph, point, shared)]
        value = insert(node, "QuantizeLinear", inputs, name=name)
        value.type, value.shape = ir.TensorType(ir.DataType.UINT8), activation.source.shape
        shared.quantized[key] = value
    return shared.quantized[key]


def _zero(graph: ir.Graph, zero: int, shared: Shared) -> ir.Value:
    if zero not in shared.zeros:
        shared.zeros[zero] = array(graph, f"zero_point.{zero}", np.array(zero, np.uint8))
    return shared.zeros[zero]


def _unsigned(graph: ir.Graph, weight: Weight, shared: Shared) -> ir.Value:
    key = (id(weight.values), weight.turned)
    if key not in shared.weights:
        shared.weights[key] = unsigned(graph, weight.values, turned=weight.turned)
    return shared.weights[key]


def _weight_zero(
    graph: ir.Graph, weight: Weight, levels: ir.Value, shared: Shared
) -> ir.Value | None:
    """The zero point of levels as they became: none, or one number, where it can be: faster."""
    before, after = dtype_of(weight.values), dtype_of(levels)
    given = constant(weight.zero)
    points = np.zeros(1, np.int16) if given is None else given.astype(np.int16)
    points += 128 if before != after else 0
    if after == ir.DataType.INT8:
        return weight.zero if points.any() else None
    if (points == points.flat[0]).all():
        return _zero(graph, int(points.flat[0]), shared)
    return array(graph, f"{weight.values.name}.zero_point", points.astype(np.uint8))
