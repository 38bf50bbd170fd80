"""bfloat16 to float32: the same numbers, for a runtime that computes no bfloat16."""

import onnx_ir as ir

from .half_cast import narrow

#: Attributes that say which float a node makes, or holds in between.
_SAYING = ("to", "dtype", "output_dtype", "stash_type")


def widen(model: ir.Model) -> None:
    """Make every bfloat16 of a model, its inputs' and outputs' too, float32; weights when saved."""
    for graph in model.graphs():
        nodes = list(graph)
        made = (value for node in nodes for value in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *made):
            _widen(value)
        for node in nodes:
            _widen_attributes(node)


def _widen(value: ir.Value) -> None:
    if value.dtype == ir.DataType.BFLOAT16:
        value.dtype = ir.DataType.FLOAT
    tensor = value.const_value
    if tensor is not None and tensor.dtype == ir.DataType.BFLOAT16:
        value.const_value = narrow(tensor, ir.DataType.FLOAT, value.name)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype == ir.DataType.BFLOAT16:
                wide = narrow(tensor, ir.DataType.FLOAT, tensor.name)
                node.attributes[name] = ir.AttrTensor(name, wide)
        elif name in _SAYING and attribute.value == ir.DataType.BFLOAT16:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
