"""Types and shapes that nobody has written down, by ONNX's own inference, weights unread."""

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from .check import skeleton


def infer(model: ir.Model) -> None:
    """Fill in types and shapes that are not known; what is known is refined, never widened."""
    unknown = [value for value in _values(model.graph) if not _known(value)]
    if not unknown:
        return
    try:
        proto = onnx.shape_inference.infer_shapes(skeleton(model), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return  # what cannot be inferred stays unknown; the checker judges the graph
    found = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}
    for value in unknown:
        info = found.get(value.name or "")
        if info is not None:
            refine(value, info)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for node in graph for value in node.outputs)


def _known(value: ir.Value) -> bool:
    shape = value.shape
    return value.type is not None and shape is not None and not shape.has_unknown_dim()


def refine(value: ir.Value, info: onnx.ValueInfoProto) -> None:
    """Take over the type and the dimensions that `value` does not know."""
    found = ir.serde.deserialize_value_info_proto(info, None)
    value.type = value.type or found.type
    if found.shape is None:
        return
    if value.shape is None:
        value.shape = found.shape.copy()
    elif len(value.shape) == len(found.shape):
        pairs = zip(value.shape, found.shape, strict=True)
        value.shape = ir.Shape([new if _vague(old) else old for old, new in pairs])


def _vague(dim: int | ir.SymbolicDim) -> bool:
    return not isinstance(dim, int) and dim.value is None
