"""Splits that exporters write as sequences, as the Split that every engine takes."""

from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .backend import EXACT, Promise
from .graph import constant, integer, register, replace, scalar, static


class SplitSequences(ir.passes.InPlacePass):
    """`SequenceAt(SplitToSequence(x, sizes), i)` becomes output i of `Split(x, sizes)`.

    Where the length of x is not known it is taken to be all the parts that are read; Split fails
    on any other, it never gives other numbers.
    """

    contract: ClassVar[Promise] = EXACT

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every split whose parts are all read by constant places."""
        splits = [node for node in model.graph if node.op_type == "SplitToSequence"]
        count = sum(_split(model.graph, node) for node in splits)
        if count:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=count > 0)


def _split(graph: ir.Graph, node: ir.Node) -> bool:
    sizes, readers = _sizes(node), [use.node for use in node.outputs[0].uses()]
    if not sizes or node.domain or node.outputs[0].is_graph_output():
        return False
    places = [_place(reader, len(sizes)) for reader in readers]
    if not readers or any(place is None for place in places):
        return False
    lengths = register(graph, f"{node.outputs[0].name}.sizes", ir.tensor(np.array(sizes, np.int64)))
    axis = {"axis": integer(node, "axis", 0)}
    made = ir.node("Split", [node.inputs[0], lengths], axis, num_outputs=len(sizes))
    for index, value in enumerate(made.outputs):
        value.name = f"{node.outputs[0].name}.{index}"
        _describe(value, node.inputs[0], axis["axis"], sizes[index])
    graph.insert_before(node, made)
    for reader, place in zip(readers, places, strict=True):
        replace(reader.outputs[0], made.outputs[place or 0])
    return True


def _sizes(node: ir.Node) -> list[int] | None:
    """The length of each part, None where it is not known, or where parts lose their axis."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    whole = static(node.inputs[0], integer(node, "axis", 0))
    lengths = constant(given)
    if lengths is None:
        return None
    if lengths.ndim == 1:
        return [int(length) for length in lengths]
    step = int(scalar(given) or 0)
    if step < 1:
        return None
    return [step] * _read(node) if whole is None else _even(whole, step)


def _even(whole: int, step: int) -> list[int]:
    return [min(step, whole - start) for start in range(0, whole, step)]


def _read(node: ir.Node) -> int:
    """How many parts are read, when they are the first ones without a gap, else 0."""
    places = {scalar(use.node.inputs[1]) for use in node.outputs[0].uses() if use.idx == 0}
    return len(places) if places == set(range(len(places))) else 0


def _place(reader: ir.Node, parts: int) -> int | None:
    """Which part a SequenceAt takes, None when that is computed or it is no SequenceAt."""
    place = scalar(reader.inputs[1]) if reader.op_type == "SequenceAt" else None
    if place is None or not -parts <= place < parts:
        return None
    return int(place) % parts


def _describe(value: ir.Value, source: ir.Value | None, axis: int, size: int) -> None:
    if source is None:
        return
    value.type = source.type
    if source.shape is not None:
        sizes = list(source.shape)
        sizes[axis] = size
        value.shape = ir.Shape(sizes)
