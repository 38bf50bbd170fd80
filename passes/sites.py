"""Where INT8 can go: weight MatMuls, grouped by the activation they share.

The placement rules are TensorRT's for explicit quantisation: only MatMul and Gemm with a constant
weight, their inputs and never their outputs, no output head, nothing thinner than a tile.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass

from .. import PassError
from .facts import attribute_int, input_of, is_constant, made_by
from .folds import NORMS, Fold, fold_of
from .sizes import Size, product, sizes
from .weights import apply

#: GEMMs thinner than this are slower with Q/DQ around them on TensorRT (ModelOpt's own limit).
MIN_DIM = 16
#: An output this many times wider than its input is a vocabulary, and its MatMul the output head.
HEAD_RATIO = 4
#: In the metadata of an output head's node: it may be INT8 as well (`FreeHeads`).
MAY_ROUND = "llmdeploy.may-round"

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_IDS = (ir.DataType.INT64, ir.DataType.INT32)
_AFTER_HEAD = {"Add", "Cast", "Identity", "Mul", "Div", "Tanh", "Reshape", "Gather", "Slice"}


@dataclass(frozen=True)
class Layer:
    """A MatMul or Gemm with a constant weight of k inputs and n outputs.

    `refused` says why the rules keep it in float, empty where INT8 is allowed. `transposed` is
    whether the weight is stored [n, k], `head` whether its outputs are a vocabulary's, `count` how
    many matrices the weight is (of experts, in a stack).
    """

    node: str
    weight: str
    k: int
    n: int
    transposed: bool = False
    refused: str = ""
    head: bool = False
    count: int = 1

    @property
    def macs(self) -> int:
        """Multiply-adds a row."""
        return self.count * self.k * self.n


@dataclass(frozen=True)
class Site:
    """An activation [..., k] that weight MatMuls read, and how its channels can be scaled."""

    tensor: str
    layers: tuple[Layer, ...]
    fold: Fold
    #: Another activation, whose variance over the last axis sets the scale of a row's error.
    stream: str | None
    #: Whether its rows are the tokens of an input, batch x sequence, or may be.
    tokens: bool
    #: Whether they lie sequence x batch.
    turned: bool = False

    @property
    def eligible(self) -> tuple[Layer, ...]:
        """The layers that may be INT8."""
        return tuple(layer for layer in self.layers if not layer.refused)

    @property
    def inner(self) -> tuple[Layer, ...]:
        """Those of them that are no output head."""
        return tuple(layer for layer in self.eligible if not layer.head)


def named(model: ir.Model, names: Iterable[str]) -> Iterator[tuple[str, ir.Node, Layer]]:
    """The weight MatMuls and Gemms of these names, each as it is when its turn comes.

    Raises:
        PassError: nothing of that name is one.
    """
    nodes = by_name(model)
    for name in names:
        node = nodes.get(name)
        if node is None or not is_weighted(node):
            raise PassError(f"no weight MatMul called {name!r}", mend="plan again")
        yield name, node, layer_of(node)


def find(model: ir.Model) -> tuple[Site, ...]:
    """Every activation that weight MatMuls of the main graph read, in the order of the graph.

    Nodes are known by their names: those that have none, or another's, are given one.
    """
    NameFixPass()(model)
    groups: dict[ir.Value, list[ir.Node]] = {}
    tells = _maybe_tokens(model)
    for node in model.graph:
        if is_weighted(node) and node.inputs[0] is not None:
            groups.setdefault(node.inputs[0], []).append(node)
    return tuple(
        Site(
            tensor=value.name or "",
            layers=tuple(layer_of(node) for node in nodes),
            fold=fold_of(value, [node for node in nodes if not layer_of(node).refused]),
            stream=next(filter(None, map(_stream, nodes)), None),
            tokens=tells(value),
            turned=_is_turned(model, value),
        )
        for value, nodes in groups.items()
    )


def _maybe_tokens(model: ir.Model) -> Callable[[ir.Value], bool]:
    """Tells of a value [..., k] whether it has a row a token, or one does not know.

    Batch x sequence of the inputs that hold ids, of several texts a sample too, are the tokens; a
    dimension that no input has is not known before running.
    """
    found = _ids(model)
    tokens = {product(each) for each in found}
    names = {name for each in found for size in each for name in _names(size)}

    def tells(value: ir.Value) -> bool:
        dims = sizes(value)
        rows = product(dims[:-1]) if dims else None
        return rows is None or rows in tokens or not _names(rows) <= names

    return tells


def _ids(model: ir.Model) -> list[tuple[Size, ...]]:
    """The sizes of the inputs that hold ids."""
    ids = (value for value in model.graph.inputs if value.dtype in _IDS)
    found = (sizes(value) for value in ids if value.shape is not None and len(value.shape) > 1)
    return [each for each in found if each is not None]


def _is_turned(model: ir.Model, value: ir.Value) -> bool:
    """Whether a value [..., k] is [sequence, batch, k], as XLNet has it."""
    rows = tuple(sizes(value) or ())[:-1]
    return any(
        len(each) == 2 and each[0] != each[1] and rows == (each[1], each[0]) for each in _ids(model)
    )


def _names(size: Size) -> set[str]:
    return {name for names, _ in size.terms for name in names}


def is_weighted(node: ir.Node) -> bool:
    """Whether a node is `x @ w` or `x @ w + b` with w a constant matrix of floats."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm"):
        return False
    source, weight = input_of(node, 0), input_of(node, 1)
    if source is None or is_constant(source) or weight is None or not _is_weight(weight):
        return False
    return node.op_type == "MatMul" or _plain(node)


def _is_weight(value: ir.Value) -> bool:
    """A constant matrix, or one that is read transposed since an embedding reads it too."""
    turned = made_by(value, "Transpose")
    source = turned.inputs[0] if turned is not None else value
    matrix = value.shape is not None and len(value.shape) == 2
    return matrix and value.dtype in _FLOATS and is_constant(source)


def _plain(node: ir.Node) -> bool:
    factors = (node.attributes.get(name) for name in ("alpha", "beta"))
    ones = all(factor is None or factor.as_float() == 1.0 for factor in factors)
    return ones and attribute_int(node, "transA", 0) == 0


def layer_of(node: ir.Node) -> Layer:
    """The layer that a weighted node is."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    rows, columns = (int(size) for size in weight.shape.numpy())
    turned = node.op_type == "Gemm" and attribute_int(node, "transB", 0) == 1
    k, n = (columns, rows) if turned else (rows, columns)
    head = n >= HEAD_RATIO * k and ends_the_graph(node)
    refused = _refused(node, k, n, head=head)
    return Layer(node.name or "", weight.name or "", k, n, turned, refused, head)


def _refused(node: ir.Node, k: int, n: int, *, head: bool) -> str:
    if not is_constant(node.inputs[1]):
        return "its weight is read through a Transpose: an embedding's, or `fold` was not run"
    if k < MIN_DIM or n < MIN_DIM:
        return f"K or N under {MIN_DIM}: slower with Q/DQ"
    if head and MAY_ROUND not in node.metadata_props:
        return "the output head stays in float"
    return ""


def ends_the_graph(node: ir.Node) -> bool:
    """Whether nothing but bias, casts, scaling and indexing lies between a node and an output."""
    value = node.outputs[0]
    for _ in range(8):
        if value.is_graph_output():
            return True
        readers = value.consumers()
        if len(readers) != 1 or readers[0].op_type not in _AFTER_HEAD:
            return False
        value = readers[0].outputs[0]
    return False


def _stream(node: ir.Node) -> str | None:
    """What a layer's output ends in before a norm divides it by its size: it, or a residual sum."""
    value = node.outputs[0]
    for _ in range(6):
        readers = value.consumers()
        if any(map(_measures, readers)):
            return value.name
        if len(readers) != 1 or readers[0].op_type not in ("Add", "Mul", "Reshape", "Cast"):
            return None
        reader = readers[0]
        value = reader.outputs[0]
        if reader.op_type == "Add" and not any(is_constant(item) for item in reader.inputs):
            return value.name
    return None


def _measures(node: ir.Node) -> bool:
    """Whether a node is a norm, or takes the squares of one that is written out."""
    squares = node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
    return squares or node.op_type in (*NORMS, "Pow", "ReduceMean", "ReduceL2", "ReduceSumSquare")


def weight_of(model: ir.Model, layer: Layer) -> NDArray[np.float32]:
    """A layer's weight as float32 [k, n], read from disk now."""
    value = model.graph.initializers[layer.weight]
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    array = apply(tensor, lambda array: array.astype(np.float32))
    return np.ascontiguousarray(array.T) if layer.transposed else array


def by_name(model: ir.Model) -> dict[str, ir.Node]:
    """The nodes of the main graph by their names, which `find` makes unique."""
    NameFixPass()(model)
    return {node.name: node for node in model.graph if node.name}
