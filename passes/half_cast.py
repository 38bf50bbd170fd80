"""Puts nodes into 16 bits: weights are stored so, and a cast stands where the types meet."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from .splice import Names, drop_initializer
from .weights import Array, apply


class Casting:
    """Casts the given nodes of one graph; every value is cast once, for all that read it."""

    def __init__(self, model: ir.Model, dtype: ir.DataType, lowered: frozenset[ir.Node]) -> None:
        self.graph = model.graph
        self.names = Names(model)
        self.dtype = dtype
        self.lowered = lowered
        self.narrowed: set[ir.Value] = set()
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        """Set the types of what the nodes make, then cast what they and the others read."""
        outputs = {value for value in self.graph.outputs if value.dtype == ir.DataType.FLOAT}
        for node in self.graph:
            if node in self.lowered:
                self._retype(node)
        for node in list(ir.traversal.RecursiveGraphIterator(self.graph)):
            for index, value in enumerate(node.inputs):
                wanted = self._wanted(node, index)
                if value is not None and wanted is not None and value.dtype != wanted:
                    node.replace_input_with(index, self._cast(value, wanted))
                    drop_initializer(value)
        for value in outputs:
            if value.dtype == self.dtype:
                self._widen_output(value)

    def _retype(self, node: ir.Node) -> None:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.type = ir.TensorType(self.dtype)
                self.narrowed.add(value)
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", int(self.dtype))
        if node.op_type == "ConstantOfShape":
            given = node.attributes.get("value")
            tensor = given.as_tensor() if given else ir.tensor(np.zeros(1, np.float32))
            node.attributes["value"] = ir.AttrTensor("value", narrow(tensor, self.dtype))

    def _wanted(self, node: ir.Node, index: int) -> ir.DataType | None:
        """The type an operand must be cast to, None where it is no float of ours."""
        value = node.inputs[index]
        if value is None or (value.dtype != ir.DataType.FLOAT and value not in self.narrowed):
            return None
        if node not in self.lowered or node.op_type == "Cast":
            low = node.op_type == "Cast" and value.dtype == self.dtype
            return None if low else ir.DataType.FLOAT
        return self.dtype if _varies(node, index, self.dtype) else ir.DataType.FLOAT

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        key = (value, wanted)
        if key not in self.casts:
            self.casts[key] = self._made(value, wanted)
        return self.casts[key]

    def _made(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        tensor = None if value.is_graph_input() else value.const_value
        name = self.names.unique(f"{value.name}_{wanted.name.lower()}")
        if tensor is not None and value.is_initializer():
            made = ir.Value(name=name, const_value=narrow(tensor, wanted, name))
            made.type, made.shape = ir.TensorType(wanted), value.shape
            self.graph.initializers.add(made)
            return made
        node = self._node(value, wanted, name)
        maker = value.producer()
        if maker is not None:
            self.graph.insert_after(maker, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        return node.outputs[0]

    def _node(self, value: ir.Value, wanted: ir.DataType, name: str | None) -> ir.Node:
        node = ir.node("Cast", [value], {"to": int(wanted)})
        made = node.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(wanted), value.shape
        return node

    def _widen_output(self, value: ir.Value) -> None:
        """Let the model's output keep its name and type: a cast makes it of the narrow value."""
        name = value.name
        value.name = self.names.unique(f"{name}_{self.dtype.name.lower()}")
        node = self._node(value, ir.DataType.FLOAT, name)
        self.graph.outputs[list(self.graph.outputs).index(value)] = node.outputs[0]
        self.graph.append(node)


def _varies(node: ir.Node, index: int, dtype: ir.DataType) -> bool:
    """Whether an operand's type may be `dtype`: some, as Resize's scales, are always float32."""
    graph = node.graph
    schema = onnx.defs.get_schema(
        node.op_type, graph.opset_imports.get("", 0) if graph is not None else 0, ""
    )
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return f"tensor({dtype.name.lower()})" in formal.types


def narrow(
    tensor: ir.TensorProtocol, dtype: ir.DataType, name: str | None = None
) -> ir.TensorProtocol:
    """The same numbers in another float type, made when they are saved.

    A single number beyond the range, as a mask's -3.4e38, becomes the type's own extreme.
    """

    def make() -> ir.TensorProtocol:
        array = apply(tensor, lambda old: _narrow(old, dtype, clip=tensor.size == 1))
        return ir.tensor(array, dtype=dtype, name=name)

    if tensor.size <= 1:
        return make()
    return ir.LazyTensor(make, dtype, ir.Shape(tensor.shape.numpy()), name=name)


def _narrow(array: Array, dtype: ir.DataType, *, clip: bool) -> Array:
    kind = dtype.numpy()
    if clip and np.isfinite(array).all():
        limit = float(ml_dtypes.finfo(kind).max)
        return np.clip(array, -limit, limit).astype(kind)
    return array.astype(kind)
