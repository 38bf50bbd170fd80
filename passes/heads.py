"""The pass `free-heads`: output heads that INT8 may take, each with a weight of its own."""

from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from .contract import EXACT, Contract
from .facts import made_by
from .kinds import Pass
from .linear import drop_unused, initializer
from .sites import MAY_ROUND, is_weighted, layer_of
from .weight_rules import changed


@dataclass(frozen=True)
class FreeHeads(Pass):
    """Marks the heads of vocabularies as layers like any other.

    A head that reads the embedding turned is given that matrix as its own, [k, n]: what becomes of
    it is the embedding's no more.
    """

    contract: ClassVar[Contract] = EXACT

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Mark them, in the node's metadata."""
        found = [node for node in model.graph if is_weighted(node) and layer_of(node).head]
        for node in found:
            _own(model.graph, node)
            node.metadata_props[MAY_ROUND] = "yes"
        drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(found))


def _own(graph: ir.Graph, node: ir.Node) -> None:
    turn = made_by(node.inputs[1], "Transpose")
    table = turn.inputs[0] if turn is not None else None
    tensor = ir.convenience.get_const_tensor(table) if table is not None else None
    if table is None or tensor is None:
        return

    def turned(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array.T)

    shape, name = tuple(int(size) for size in reversed(tensor.shape.numpy())), f"{node.name}.weight"
    own = initializer(graph, changed(tensor, turned, shape, name), name)
    node.replace_input_with(1, own)
