"""What is in an ONNX graph: operators, inputs, weights by dtype, the precision of its MatMuls."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...passes import load
from ...passes.store import tensors
from ..referenced import weights_of

#: Operators that multiply by a weight, and where among their inputs it may stand.
_WEIGHTED = {
    "MatMul": (1, 0),
    "Gemm": (1, 0),
    "Conv": (1,),
    "MatMulInteger": (1, 0),
    "ConvInteger": (1,),
    "QLinearMatMul": (3,),
    "MatMulIntegerToFloat": (1,),
    "DynamicQuantizeMatMul": (1,),
    "MatMulNBits": (1,),
}
#: Those that multiply integers whatever stands before them.
_INTEGER = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "MatMulIntegerToFloat"} | {
    "DynamicQuantizeMatMul"
}
#: Operators that move numbers without changing them.
_MOVES = {"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast"}


def graph(path: Path) -> dict[str, Any]:
    """The facts of an ONNX file, as JSON values; weights stay on disk.

    Raises:
        ConfigError: there is no such file.
        PassError: it is not a whole ONNX model, or its weights are not where it says.
    """
    model = load(path, weights_of(path if path.is_dir() else path.parent))
    nodes = [node for one in _graphs(model) for node in one]
    return {
        "ir_version": model.ir_version,
        "opset": dict(model.opset_imports),
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "nodes": len(nodes),
        "operators": dict(Counter(_name(node) for node in nodes).most_common()),
        "inputs": [_value(value) for value in model.graph.inputs],
        "outputs": [_value(value) for value in model.graph.outputs],
        **_weights(model),
        "matmuls": _matmuls(nodes),
    }


def _graphs(model: ir.Model) -> Iterable[ir.Graph | ir.Function]:
    return (*model.graphs(), *model.functions.values())


def _name(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _dtype(dtype: ir.DataType) -> str:
    """Numpy's name: ONNX calls float32 FLOAT and float64 DOUBLE."""
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


def _value(value: ir.Value) -> dict[str, Any]:
    shape = value.shape
    sizes = None if shape is None else [_size(size) for size in shape]
    dtype = None if value.dtype is None else _dtype(value.dtype)
    return {"name": value.name, "dtype": dtype, "shape": sizes}


def _size(size: int | ir.SymbolicDim) -> int | str:
    return size if isinstance(size, int) else str(size.value or "?")


def _weights(model: ir.Model) -> dict[str, Any]:
    found = list(_once(tensors(model)))
    by_dtype: Counter[str] = Counter()
    for tensor in found:
        by_dtype[_dtype(tensor.dtype)] += tensor.nbytes
    external: Counter[str] = Counter()
    for tensor in found:
        if isinstance(tensor, ir.ExternalTensor):
            external[str(tensor.location)] += tensor.nbytes
    return {
        "parameters": sum(tensor.size for tensor in found if tensor.size > 1),
        "bytes_by_dtype": dict(by_dtype.most_common()),
        "external_bytes": dict(external),
    }


def _once(found: Iterable[ir.TensorProtocol]) -> Iterator[ir.TensorProtocol]:
    """Each stretch of bytes once: tied weights are one."""
    seen: set[object] = set()
    for tensor in found:
        key: object = id(tensor)
        if isinstance(tensor, ir.ExternalTensor):
            key = (str(tensor.location), tensor.offset, tensor.length)
        if key not in seen:
            seen.add(key)
            yield tensor


def _matmuls(nodes: Iterable[ir.Node]) -> list[dict[str, Any]]:
    """By precision: how many, their weights' elements, and the share of all such elements."""
    count: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    for node in nodes:
        if node.op_type in _WEIGHTED:
            precision, size = _precision(node)
            count[precision] += 1
            elements[precision] += size
    total = sum(elements.values())
    return [
        {
            "precision": precision,
            "count": count[precision],
            "weights": size,
            "share": size / total if total else None,
        }
        for precision, size in elements.most_common()
    ]


def _precision(node: ir.Node) -> tuple[str, int]:
    for place in _WEIGHTED[node.op_type]:
        weight = _stored(node.inputs[place]) if place < len(node.inputs) else None
        if weight is not None:
            other = node.inputs[1 - place] if place < 2 else node.inputs[0]
            return _label(node, weight, other), _elements(node, weight)
    return "activations only", 0


def _label(node: ir.Node, weight: ir.TensorProtocol, other: ir.Value | None) -> str:
    if node.op_type == "MatMulNBits":
        return f"int{node.attributes['bits'].as_int()} weights"
    dtype = _dtype(weight.dtype)
    if not weight.dtype.is_integer() and weight.dtype.bitwidth > 8:
        return dtype
    whole = node.op_type in _INTEGER or _dequantized(other)
    name = dtype.removeprefix("u")
    return name if whole else f"{name} weights"


def _elements(node: ir.Node, weight: ir.TensorProtocol) -> int:
    if node.op_type == "MatMulNBits":
        return node.attributes["K"].as_int() * node.attributes["N"].as_int()
    return weight.size


def _source(value: ir.Value | None, through: set[str]) -> ir.Value | None:
    """Where a value comes from, back through operators that only move or rescale."""
    while value is not None:
        node = value.producer()
        if node is None or node.op_type not in through:
            return value
        value = node.inputs[0]
    return None


def _stored(value: ir.Value | None) -> ir.TensorProtocol | None:
    source = _source(value, _MOVES | {"DequantizeLinear", "QuantizeLinear"})
    return None if source is None else source.const_value


def _dequantized(value: ir.Value | None) -> bool:
    source = _source(value, _MOVES)
    node = None if source is None else source.producer()
    return node is not None and node.op_type == "DequantizeLinear"
