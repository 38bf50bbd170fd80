"""The pass `factor`: weights as products of two thin ones."""

from collections.abc import Mapping
from dataclasses import dataclass as record
from typing import Any, ClassVar

import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass
from .linear import array_of, drop_unused, like
from .sites import named


@record(frozen=True)
class Thin:
    """A layer's weight [k, n] as left [k, r] @ right [r, n]."""

    left: NDArray[Any]
    right: NDArray[Any]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Factor(Pass):
    """x @ W + b = (x @ left) @ right + b in the weight MatMuls and Gemms that are named."""

    layers: Mapping[str, Any]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Put two thin products in the place of each.

        Raises:
            PassError: no weight MatMul or Gemm has that name, or it is of another shape.
        """
        for name, node, shape in named(model, self.layers):
            thin = self.layers[name]
            if (len(thin.left), thin.right.shape[1]) != (shape.k, shape.n):
                raise PassError(f"{name} is [{shape.k}, {shape.n}]", mend="plan again")
            _factor(model.graph, node, thin)
        drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(self.layers))


def _factor(graph: ir.Graph, node: ir.Node, thin: Thin) -> None:
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    left = array_of(graph, like(weight, thin.left), f"{weight.name}.left")
    first = ir.node("MatMul", [x, left], name=f"{node.name}.thin")
    made = first.outputs[0]
    made.name, made.type = f"{x.name}.{node.name}.thin", x.type
    if x.shape is not None:
        made.shape = ir.Shape([*x.shape[:-1], thin.left.shape[1]])
    graph.insert_before(node, first)
    right = array_of(graph, like(weight, thin.right), f"{weight.name}.right")
    node.replace_input_with(0, made)
    node.replace_input_with(1, right)
    if node.op_type == "Gemm":
        node.attributes["transB"] = ir.AttrInt64("transB", 0)
