"""Types and shapes that nobody has written down, by ONNX's own inference, weights unread."""

from collections.abc import Iterable, Iterator, Mapping

import onnx
import onnx_ir as ir

from .check import subgraphs
from .facts import exact_shape
from .sizes import correct, equate, is_vague, sizes, text
from .skeleton import skeleton

#: The names of what the nodes make that a value is in a body of, which body, and its own.
Place = tuple[str, ...]


def forget(model: ir.Model) -> None:
    """Drop the shapes written between inputs and outputs that contradict the operators.

    Exporters write such; runtimes do not believe them either.
    """
    written = {value: value.shape for value in _values(model.graph) if not value.is_graph_output()}
    for value in written:
        value.shape = None
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            value.shape = ir.Shape(value.const_value.shape.numpy())
    infer(model)
    for value, shape in written.items():
        value.shape = _agreed(value.shape, shape)


def _agreed(inferred: ir.Shape | None, written: ir.Shape | None) -> ir.Shape | None:
    """What is inferred, and where that is vague what was written, if the two can both be true."""
    if inferred is None or written is None:
        return inferred if written is None else written
    if len(inferred) != len(written):
        return inferred
    pairs = list(zip(inferred, written, strict=True))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        return inferred
    return ir.Shape([old if is_vague(new) else new for new, old in pairs])


def infer(model: ir.Model) -> bool:
    """Fill in types and shapes that are not known, in bodies too; whether any was to fill in.

    What is known is kept. A dimension ONNX's inference only numbers (unk__1) is asked for again
    every time: what was rewritten since may tell it.
    """
    _equate(model.graph)
    unknown = {place: value for place, value in _places(model.graph) if not _settled(value)}
    for value in unknown.values():
        if value.shape is not None:
            value.shape = _plain(value.shape)
    if not unknown:
        return False
    while _infer(model, unknown) and _exact(unknown.values()):
        pass
    _equate(model.graph)
    return True


def _equate(graph: ir.Graph) -> None:
    """Learn that total = past + sequence where a shape is written as one and made as other.

    What is written at an output is the word of whoever named it: there only the shape counts that
    is made, as it does where the two contradict each other.
    """
    for node in graph:
        value = node.outputs[0]
        exact = None if node.domain else exact_shape(node)
        written = sizes(value) if exact is not None else None
        if exact is None or written is None or written == exact or len(exact) != len(written):
            continue
        pairs = [(one, two) for one, two in zip(written, exact, strict=True) if one != two]
        apart = any(one.name is None or one.name in two.names() for one, two in pairs)
        if value.is_graph_output() or apart:
            correct(value, exact)
            continue
        for one, two in pairs:
            equate(graph, one.name or "", two)


def _infer(model: ir.Model, unknown: Mapping[Place, ir.Value]) -> bool:
    try:
        proto = onnx.shape_inference.infer_shapes(skeleton(model), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return False  # what cannot be inferred stays unknown; the checker judges the graph
    found = dict(_told(proto.graph))
    for place, value in unknown.items():
        info = found.get(place)
        if info is not None:
            _refine(value, info)
    return True


def _exact(unknown: Iterable[ir.Value]) -> bool:
    """Name what shape arithmetic tells, as 12*batch, where ONNX's inference only numbers it."""
    found = False
    for value in unknown:
        node, shape = value.producer(), value.shape
        if node is None or node.domain or shape is None or _known(value):
            continue
        exact = exact_shape(node)
        if exact is not None and len(exact) == len(shape):
            pairs = list(zip(shape, map(text, exact), strict=True))
            value.shape = ir.Shape([new if is_vague(old) else old for old, new in pairs])
            found |= _known(value)
    return found


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for node in graph for value in node.outputs)


def _places(graph: ir.Graph, within: Place = ()) -> Iterator[tuple[Place, ir.Value]]:
    """The values that nodes make, by where they are: bodies side by side may use one name twice."""
    for node in graph:
        names = tuple(value.name or "" for value in node.outputs)
        for name, value in zip(names, node.outputs, strict=True):
            yield (*within, name), value
        for index, body in enumerate(subgraphs(node)):
            yield from _places(body, (*within, *names, str(index)))


def _told(
    graph: onnx.GraphProto, within: Place = ()
) -> Iterator[tuple[Place, onnx.ValueInfoProto]]:
    """What inference says of those values, by the same."""
    for info in (*graph.value_info, *graph.output):
        yield (*within, info.name), info
    for node in graph.node:
        held = [each for each in node.attribute if each.HasField("g") or each.graphs]
        bodies = [body for each in held for body in (each.graphs or [each.g])]
        for index, body in enumerate(bodies):
            yield from _told(body, (*within, *node.output, str(index)))


def _settled(value: ir.Value) -> bool:
    """Whether there is nothing to ask: an output's shape, once given, is the model's word."""
    named = value.is_graph_output() and value.shape is not None and value.type is not None
    return named or _known(value)


def _known(value: ir.Value) -> bool:
    shape = value.shape
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return True  # a sequence or an optional has no shape of its own
    return value.type is not None and shape is not None and not any(map(is_vague, shape))


def _refine(value: ir.Value, info: onnx.ValueInfoProto) -> None:
    found = ir.serde.deserialize_value_info_proto(info, None)
    value.type = value.type or found.type
    if found.shape is None or not isinstance(value.type, ir.TensorType):
        return
    told = _plain(found.shape) if value.is_graph_output() else found.shape
    if value.shape is None:
        value.shape = told.copy()
    elif len(value.shape) == len(told):
        pairs = zip(value.shape, told, strict=True)
        value.shape = ir.Shape([new if is_vague(old) else old for old, new in pairs])


def _plain(shape: ir.Shape) -> ir.Shape:
    """A shape without the numbers that inference gives to what it does not know."""
    return ir.Shape([None if is_vague(dim) else dim for dim in shape])
