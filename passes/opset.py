"""A model in opset 21, for what is put into it: blocks, 4-bit integers, INT16 as activations."""

import onnx
import onnx_ir as ir

from .. import PassError
from .facts import input_of

#: The first opset, and version of the IR, with blocks and 4-bit integers.
OPSET, IR_VERSION = 21, 10
#: Operators that mean something else than in an earlier opset, and since when.
CHANGED = {
    "AveragePool": 19,
    "DFT": 20,
    "GroupNormalization": 21,
    "Hardmax": 13,
    "LogSoftmax": 13,
    "Resize": 11,
    "RoiAlign": 16,
    "Softmax": 13,
}
#: What GridSample's modes have been called since opset 20.
MODES = {"bilinear": "linear", "bicubic": "cubic"}


def lift(model: ir.Model) -> None:
    """Let a model be of opset 21 at least; its operators compute what they did.

    Raises:
        PassError: an operator means something else there, or is written in another way.
    """
    opset = model.opset_imports.get("", OPSET)
    if opset < OPSET:
        nodes = [node for node in model.graph.all_nodes() if not node.domain]
        for node in nodes:
            if _differs(node, opset):
                raise PassError(
                    f"{node.op_type} is not the same in opset {OPSET}, which this precision needs",
                    where=f"node {node.name}",
                    mend=f"export with --opset {OPSET}",
                )
        for node in nodes:
            mode = node.attributes.get("mode") if node.op_type == "GridSample" else None
            if mode is not None and mode.as_string() in MODES:
                node.attributes["mode"] = ir.AttrString("mode", MODES[mode.as_string()])
        model.opset_imports[""] = OPSET
    model.ir_version = max(model.ir_version, IR_VERSION)


def _differs(node: ir.Node, opset: int) -> bool:
    """Whether a node of an earlier opset is another, or none, in 21."""
    if CHANGED.get(node.op_type, 0) > opset:
        return True
    try:
        schema = onnx.defs.get_schema(node.op_type, OPSET, "")
    except onnx.defs.SchemaError:  # ONNX Runtime's own, which pass for standard ones
        return False
    halves = node.op_type == "Split" and opset < 18 and input_of(node, 1) is None
    return halves or schema.deprecated or not node.attributes.keys() <= schema.attributes.keys()
