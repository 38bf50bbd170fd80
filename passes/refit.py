"""The pass `refit`: other numbers in the layers that are named, shapes as they were."""

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
from .linear import array_of, change_bias, drop_unused, like
from .sites import Layer, named

Vector = NDArray[np.floating[Any]]


@record(frozen=True)
class Refitted:
    """A layer's weight [k, n] and what is added to its bias [n], either as it was where None."""

    weight: NDArray[np.floating[Any]] | None = None
    offset: Vector | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Refit(Pass):
    """Gives weight MatMuls and Gemms, by name, the weights and biases of their `Refitted`."""

    layers: Mapping[str, Any]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Put the numbers in.

        Raises:
            PassError: no weight MatMul or Gemm has that name, or it is of another shape.
        """
        for name, node, shape in named(model, self.layers):
            _refit(model.graph, node, shape, self.layers[name])
        drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(self.layers))


def _refit(graph: ir.Graph, node: ir.Node, shape: Layer, layer: Refitted) -> None:
    old = node.inputs[1]
    assert old is not None
    if layer.weight is not None:
        if layer.weight.shape != (shape.k, shape.n):
            raise PassError(f"{node.name} is [{shape.k}, {shape.n}]", mend="plan again")
        array = layer.weight.T if shape.transposed else layer.weight
        node.replace_input_with(1, array_of(graph, like(old, array), f"{old.name}.refitted"))
    offset = layer.offset
    if offset is not None:
        change_bias(node, lambda b: b + offset, shape.n, "refitted")
