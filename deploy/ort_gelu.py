"""Gelu by tanh, cheaper than by erf, where rounding to INT8 follows and hides the difference."""

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from .backend import Promise
from .graph import constant

#: The greatest distance of the two, at 2.70 and -2.70 (Hendrycks and Gimpel, arXiv 1606.08415).
DISTANCE = 4.74e-4
#: How many times that a step of the rounding must be: one level in so many may move by one.
TIMES = 20


class RoundedGelu(ir.passes.InPlacePass):
    """`Gelu(x)` takes `approximate = "tanh"` where all that reads it is rounded in wide steps.

    Columns that are picked to stay float beside the rounded ones may read it too: they are off by
    far less than their neighbours.
    """

    contract: ClassVar[Promise] = Promise("lossy", {"float32": 0.02})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change each Gelu whose readers would not tell."""
        found = [node for node in model.graph if _exact(node) and _hidden(node.outputs[0])]
        for node in found:
            node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
        return ir.passes.PassResult(model, modified=bool(found))


def _exact(node: ir.Node) -> bool:
    if node.op_type != "Gelu" or node.domain:
        return False
    how = node.attributes.get("approximate")
    return how is None or how.as_string() == "none"


def _hidden(value: ir.Value, factor: float = 1.0) -> bool:
    """Whether some reader rounds `value`, `factor` times a Gelu, and none needs it nearer."""
    if value.is_graph_output():
        return False
    readers = [use.node for use in value.uses()]
    rounds = [node for node in readers if node.op_type != "Gather"]
    return bool(rounds) and all(_rounds(node, value, factor) for node in rounds)


def _rounds(node: ir.Node, value: ir.Value, factor: float) -> bool:
    if node.op_type == "QuantizeLinear":
        step = constant(node.inputs[1])
        if step is None or step.dtype != np.float32 or step.size != 1:
            return False
        return float(step.min()) >= TIMES * DISTANCE * factor
    if node.op_type not in ("Mul", "Add") or len(node.inputs) != 2:
        return False
    other = constant(node.inputs[1] if node.inputs[0] is value else node.inputs[0])
    if other is None:
        return False
    grown = factor * float(np.abs(other).max()) if node.op_type == "Mul" else factor
    return _hidden(node.outputs[0], grown)
