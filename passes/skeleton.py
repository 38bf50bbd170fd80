"""A model as the checker and shape inference take it: nothing big in it, and no file asked for."""

import onnx
import onnx_ir as ir

#: Weights above this many bytes are not handed to the checker, only their dtype and shape.
WEIGHTLESS = 1024
#: A domain of which the checker knows nothing: its operators make what is elsewhere.
ELSEWHERE = "llmdeploy.elsewhere"
_EXTERNAL = onnx.TensorProto.EXTERNAL


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf without its weights: they become inputs, so nothing big is copied.

    Those in another file that a body or an attribute holds are made by nodes of no known kind.
    """
    initializers = model.graph.initializers
    everything = dict(initializers)
    # a default is only taken where nobody gives another: nothing may be inferred of its numbers
    heavy = [v for v in everything.values() if v.is_graph_input() or _is_heavy(v.const_value)]
    try:
        for value in heavy:
            del initializers[value.name or ""]
        proto = ir.serde.serialize_model(model)
    finally:
        initializers.clear()
        initializers.update(everything)
    inputs = {value.name for value in proto.graph.input}
    proto.graph.input.extend(
        ir.serde.serialize_value(_typed(value)) for value in heavy if value.name not in inputs
    )
    if _hide(proto.graph):
        proto.opset_import.append(onnx.helper.make_opsetid(ELSEWHERE, 1))
    for function in proto.functions:
        if _hide(function):
            function.opset_import.append(onnx.helper.make_opsetid(ELSEWHERE, 1))
    return proto


def unshaped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same without inputs and outputs that have no shape, which the checker refuses.

    Tools that trace write such where not even the rank is known, and every runtime takes them.
    """
    graph = proto.graph
    given = [value for value in graph.input if not _is_shaped(value)]
    for value in given:
        graph.node.insert(0, onnx.helper.make_node("Given", [], [value.name], domain=ELSEWHERE))
        graph.input.remove(value)
    asked = [value for value in graph.output if not _is_shaped(value)]
    for value in asked:
        graph.output.remove(value)
    graph.value_info.extend([*given, *asked])
    if given:
        proto.opset_import.append(onnx.helper.make_opsetid(ELSEWHERE, 1))
    return proto


def _is_shaped(value: onnx.ValueInfoProto) -> bool:
    kind = value.type
    return not kind.HasField("tensor_type") or kind.tensor_type.HasField("shape")


def _hide(graph: onnx.GraphProto | onnx.FunctionProto) -> bool:
    """Put nodes of no known kind where tensors lie in another file; whether there was one."""
    hidden = [(node, node.attribute[0].t) for node in graph.node if _is_far(node)]
    for node, tensor in hidden:
        _give(graph, node, tensor, node.output[0])
    if isinstance(graph, onnx.GraphProto):
        for tensor in [each for each in graph.initializer if each.data_location == _EXTERNAL]:
            graph.node.insert(0, onnx.NodeProto())
            _give(graph, graph.node[0], tensor, tensor.name)
            graph.initializer.remove(tensor)
            hidden.append((graph.node[0], tensor))
    bodies = [body for node in graph.node for each in node.attribute
              for body in (each.g, *each.graphs)]  # fmt: skip
    return any([_hide(body) for body in bodies]) or bool(hidden)


def _is_far(node: onnx.NodeProto) -> bool:
    constant = node.op_type == "Constant" and len(node.attribute) == 1
    return constant and node.attribute[0].t.data_location == _EXTERNAL


def _give(
    graph: onnx.GraphProto | onnx.FunctionProto,
    node: onnx.NodeProto,
    tensor: onnx.TensorProto,
    name: str,
) -> None:
    """Make a node that gives a tensor's dtype and shape, and no more, under a name."""
    kind, shape = tensor.data_type, list(tensor.dims)
    node.CopyFrom(onnx.helper.make_node("Given", [], [name], domain=ELSEWHERE))
    if isinstance(graph, onnx.GraphProto) and all(each.name != name for each in graph.value_info):
        graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, shape))


def _is_heavy(tensor: ir.TensorProtocol | None) -> bool:
    """Whether the checker goes without it: it is large, elsewhere, or not made yet."""
    if tensor is None or isinstance(tensor, ir.ExternalTensor | ir.LazyTensor):
        return True
    return tensor.nbytes > WEIGHTLESS


def _typed(value: ir.Value) -> ir.Value:
    tensor = value.const_value
    if tensor is None:
        return value
    return ir.Value(
        name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
    )
