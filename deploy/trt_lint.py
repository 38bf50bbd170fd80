"""What TensorRT's parser refuses, or takes and computes otherwise: found in any ONNX file.

Measured with the parser of TensorRT-RTX 1.7.1; what it says nothing about is listed for that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from .. import BuildError
from .graph import constant, integer
from .trt_operators import CONTRIB, OPSETS, UNSUPPORTED, WITHOUT_PLUGIN

#: Operators that give elements of their first input, of whatever dtype.
MOVES = ("Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
SCATTERS = ("ScatterElements", "ScatterND")


@dataclass(frozen=True)
class Finding:
    """One thing that would fail, or silently differ (`silent`), and its mend."""

    rule: str
    node: str
    what: str
    mend: str
    silent: bool = False

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.node}: {self.what}; {self.mend}"


def lint(path: Path, *, rtx: bool = False) -> list[Finding]:
    """Everything in an ONNX file that TensorRT does not take, or takes for something else.

    With `rtx`, also what TensorRT-RTX lacks beside TensorRT.

    Raises:
        BuildError: the file is no ONNX model.
    """
    try:
        model = ir.load(path)
    except Exception as error:
        what = f"not an ONNX model: {' '.join(str(error).split())[:200]}"
        raise BuildError(what, where=path, mend="name a .onnx file") from error
    return findings(model, rtx=rtx)


def findings(model: ir.Model, *, rtx: bool = False) -> list[Finding]:
    """As `lint`, of a model in memory.

    Raises:
        BuildError: its functions call each other in a circle.
    """
    found = list(_model(model))
    rules = (*RULES, _plugin) if rtx else RULES
    for node in _inlined(model).graph.all_nodes():
        found += [finding for rule in rules for finding in rule(node)]
    return found


def _inlined(model: ir.Model) -> ir.Model:
    """Functions in the place of their calls: attributes that they are given are known there."""
    if not model.functions:
        return model
    try:
        return InlinePass()(model.clone()).model
    except ir.passes.PreconditionError as error:
        raise BuildError(
            str(error), where="the graph", mend="write it without functions"
        ) from error


def _model(model: ir.Model) -> Iterator[Finding]:
    opset = model.opset_imports.get("", 0)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        what = f"opset {opset} is outside {OPSETS[0]} to {OPSETS[1]}"
        yield Finding("opset", "the graph", what, "export with --opset 20")
    for value in model.graph.inputs:
        if not value.uses() and not value.is_graph_output():
            what = f"input {value.name} is not read"
            yield Finding("unused-input", "the graph", what, "drop the input", silent=True)


def _quantize(node: ir.Node) -> Iterator[Finding]:
    """Only symmetric int8 means in TensorRT what it means in ONNX."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.domain:
        return
    kind, name = _kind(node), _name(node)
    omitted = len(node.inputs) < 3 or node.inputs[2] is None
    if kind == "uint8" and omitted and node.op_type == "QuantizeLinear":
        what = "no zero point: uint8 in ONNX, imported as INT8"
        mend = "state an int8 zero point of 0"
        yield Finding("zero-point-omitted", name, what, mend, silent=True)
    elif kind == "uint8":
        what, mend = "uint8 is imported as INT8", "quantise to int8 with zero point 0"
        yield Finding("uint8", name, what, mend, silent=True)
    elif kind == "int32":
        what, mend = "an int32 bias is not taken", "leave the bias in float"
        yield Finding("int32-bias", name, what, mend)
    elif kind in ("int16", "uint16", "uint4", "float8e5m2", "float8e5m2fnuz", "float8e4m3fnuz"):
        what = f"{kind} cannot be imported"
        yield Finding("dtype", name, what, "use int8, int4 or float8e4m3fn")
    zeros = constant(node.inputs[2]) if not omitted else None
    if zeros is not None and zeros.astype(np.float32).any():
        what, mend = "a zero point other than 0", "quantise symmetrically"
        yield Finding("zero-point", name, what, mend)
    scales = constant(node.inputs[1])
    if scales is not None and not (scales.astype(np.float32) > 0).all():
        what = "a scale that is not positive"
        yield Finding("scale", name, what, "give dead channels a small scale, 1e-8")


def _attention(node: ir.Node) -> Iterator[Finding]:
    if node.op_type != "Attention" or node.domain:
        return
    given = [index for index, value in enumerate(node.inputs) if value is not None]
    outputs = [value for value in node.outputs if value.name and value.uses()]
    name = _name(node)
    if (
        {4, 5} & set(given)
        or len(outputs) > 1
        or any(v.is_graph_output() for v in node.outputs[1:])
    ):
        what = "past and present of Attention are not taken"
        yield Finding("attention-cache", name, what, "concatenate the cache outside")
    softcap = node.attributes.get("softcap")
    if softcap is not None and softcap.as_float() != 0:
        what, mend = "softcap is not taken", "export with eager attention"
        yield Finding("attention-softcap", name, what, mend)
    if 6 in given:
        what, mend = "nonpad_kv_seqlen is ignored", "use a mask"
        yield Finding("attention-length", name, what, mend, silent=True)


def _operator(node: ir.Node) -> Iterator[Finding]:
    name, op = _name(node), node.op_type
    if node.domain in ("", "ai.onnx") and op in UNSUPPORTED:
        yield Finding("operator", name, f"{op} is not supported", UNSUPPORTED[op])
    elif node.domain == "com.microsoft" and op not in CONTRIB:
        what = f"{op} is ONNX Runtime's own"
        yield Finding("operator", name, what, "build from the neutral graph, before its lowering")
    elif node.domain not in ("", "ai.onnx", "com.microsoft") and not op.startswith("TRT_"):
        what = f"{node.domain}.{op} is not supported"
        yield Finding("operator", name, what, "inline it, or register a plugin")
    reduction = node.attributes.get("reduction") if op in SCATTERS else None
    if reduction is not None and reduction.as_string() != "none":
        what = f"{op} with reduction {reduction.as_string()} is not supported"
        yield Finding("operator", name, what, "sum by a MatMul with a mask of the places")
    mode = node.attributes.get("mode") if op == "TensorScatter" else None
    if mode is not None and mode.as_string() != "linear":
        what = "TensorScatter is not linear"
        yield Finding("operator", name, what, "use a cache that does not wrap")


def _plugin(node: ir.Node) -> Iterator[Finding]:
    op = node.op_type
    if node.domain in ("", "ai.onnx") and op in WITHOUT_PLUGIN:
        what = f"{op} needs a plugin that TensorRT-RTX does not carry"
        yield Finding("plugin", _name(node), what, WITHOUT_PLUGIN[op])


RULES: tuple[Callable[[ir.Node], Iterator[Finding]], ...] = (_quantize, _attention, _operator)


def float_attention(path: Path) -> bool:
    """Whether the graph has an Attention of float32, for which TensorRT has no kernel."""
    return any(
        node.op_type == "Attention"
        and not node.domain
        and any(v is not None and v.dtype in (ir.DataType.FLOAT, None) for v in node.inputs[:1])
        for node in ir.load(path).graph.all_nodes()
    )


def _kind(node: ir.Node) -> str:
    """The quantised dtype of a Q or DQ; uint8 where a QuantizeLinear leaves it open."""
    zeros = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if zeros is not None:
        return zeros.dtype.name.replace("float8_", "float8")
    source = node.inputs[0]
    if node.op_type == "DequantizeLinear":
        maker = source.producer() if source is not None else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            return ""  # said of the QuantizeLinear
        found = _dtype(source)
        return found.name.lower() if found else ""
    stated = integer(node, "output_dtype", 0)
    return ir.DataType(stated).name.lower() if stated else "uint8"


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    """The dtype of a value, of a Constant's or of what was moved to make it where none is said."""
    while value is not None and value.dtype is None:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None:
            return tensor.dtype
        maker = value.producer()
        moved = maker is not None and not maker.domain and maker.op_type in MOVES
        value = maker.inputs[0] if maker is not None and moved else None
    return value.dtype if value is not None else None


def _name(node: ir.Node) -> str:
    """A node by its name, or by what it makes."""
    return f"{node.op_type} {node.name or (node.outputs[0].name if node.outputs else '')}"
