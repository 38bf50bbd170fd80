"""Two LayerNormalizations of one tensor, as smoothing leaves them, become one and a product."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

from .backend import CLOSE, Promise
from .graph import array, constant, insert, made_by, only_use, replace

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Twins:
    """`other = kept * factor + offset`, element by element [width]; `later` is after both."""

    kept: ir.Node
    other: ir.Node
    later: ir.Node
    factor: Vector
    offset: Vector


class ShareNorm(ir.passes.InPlacePass):
    """`LN(x; g', b')` beside `LN(x; g, b)` becomes `LN(x; g, b) * (g' / g) + (b' - b g' / g)`.

    The offset moves into the bias of the integer MatMul that the norm is added to. Where there is
    none both norms stay: a product and a sum would cost as much as a norm.
    """

    contract: ClassVar[Promise] = CLOSE

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Share what two norms of one tensor have in common."""
        norms: dict[tuple[int, str], list[ir.Node]] = {}
        for node in model.graph:
            if node.op_type == "LayerNormalization" and not node.domain:
                settings = ";".join(f"{k}={v.value}" for k, v in sorted(node.attributes.items()))
                norms.setdefault((id(node.inputs[0]), settings), []).append(node)
        pairs = [pair for pair in norms.values() if len(pair) == 2]
        count = sum(_share(model.graph, first, second) for first, second in pairs)
        if count:
            RemoveUnusedNodesPass()(model)
            TopologicalSortPass()(model)  # the later norm's readers wait for what it is made of
        return ir.passes.PassResult(model, modified=count > 0)


def _share(graph: ir.Graph, first: ir.Node, second: ir.Node) -> bool:
    for kept, other in ((first, second), (second, first)):
        product, twins = _added_to(other), _twins(kept, other, second)
        if product is not None and twins is not None:
            _replace(graph, twins, product)
            return True
    return False


def _added_to(norm: ir.Node) -> ir.Node | None:
    """The integer MatMul with a bias that the norm alone is added to, and nothing else reads.

    It may be one of two summands, beside the product of the channels that stay in float.
    """
    add = only_use(norm.outputs[0])
    if add is None or add.op_type != "Add" or add.domain:
        return None
    other = add.inputs[1 if add.inputs[0] is norm.outputs[0] else 0]
    inner = made_by(other, "Add")
    if inner is None or other is None or only_use(other) is not add:
        return _biased(other, add)
    found = (_biased(summand, inner) for summand in inner.inputs)
    return next((product for product in found if product is not None), None)


def _biased(value: ir.Value | None, reader: ir.Node) -> ir.Node | None:
    """The integer MatMul with a constant bias that makes what `reader` alone reads."""
    product = value.producer() if value is not None else None
    if value is None or product is None or product.op_type != "MatMulIntegerToFloat":
        return None
    biased = len(product.inputs) > 6 and constant(product.inputs[6]) is not None
    return product if biased and only_use(value) is reader else None


def _twins(kept: ir.Node, other: ir.Node, later: ir.Node) -> Twins | None:
    one, two = _vectors(kept), _vectors(other)
    if one is None or two is None or one[0].shape != two[0].shape:
        return None
    scale, bias = (each.astype(np.float64) for each in one)
    if np.abs(scale).min() <= 1e-6 * np.abs(scale).max():  # all are 0 where both are
        return None
    factor = two[0] / scale
    offset = two[1] - bias * factor
    return Twins(kept, other, later, factor.astype(np.float32), offset.astype(np.float32))


def _vectors(norm: ir.Node) -> tuple[Vector, Vector] | None:
    scale, given = constant(norm.inputs[1]), norm.inputs[2] if len(norm.inputs) > 2 else None
    if scale is None or scale.dtype != np.float32 or scale.ndim != 1:
        return None
    bias = constant(given) if given is not None else np.zeros_like(scale)
    return (scale, bias) if bias is not None else None


def _replace(graph: ir.Graph, twins: Twins, product: ir.Node) -> None:
    out, bias = twins.other.outputs[0], constant(product.inputs[6])
    assert bias is not None
    moved = array(graph, f"{out.name}.offset", bias + twins.offset)
    product.replace_input_with(6, moved)
    if (twins.factor == 1).all():  # norms that differ by a shift alone
        replace(out, twins.kept.outputs[0])
        return
    factor = array(graph, f"{out.name}.factor", twins.factor)
    inputs = [twins.kept.outputs[0], factor]
    scaled = insert(twins.later, "Mul", inputs, name=f"{out.name}.shared", like=out)
    graph.remove(twins.later)  # `scaled` reads the kept norm, which may be the later one
    graph.insert_before(_maker(scaled), twins.later)
    replace(out, scaled)


def _maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node
