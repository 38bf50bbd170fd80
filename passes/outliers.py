"""The pass `outliers`: single channels of an activation that outgrow all others stay in float.

x @ w = x' @ w + x[..., O] @ w[O] where w' has zeros in the rows O. One channel thousands of times
the others (arXiv 2402.17762) sets the steps of all weights of its column and of its activation;
alone in float it costs a dot product of as many terms as there are such channels.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .kinds import Pass
from .linear import array_of, change_weight, ending, like, move
from .sites import by_name, is_weighted, layer_of, weight_of
from .splice import Names

#: Which layers share what is picked: of one activation, by its channels.
Key = tuple[ir.Value, tuple[int, ...]]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Outliers(Pass):
    """Takes channels out of layers: `channels` holds their indices by the layer's name."""

    channels: Mapping[str, tuple[int, ...]]

    contract: ClassVar[Contract] = Contract(
        "close", {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
    )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Take them out of every named layer.

        Raises:
            PassError: no layer has that name, or it has no such channel.
        """
        nodes = {name: node for name, node in by_name(model).items() if is_weighted(node)}
        for name, channels in self.channels.items():
            if name not in nodes or max(channels) >= layer_of(nodes[name]).k:
                raise PassError(
                    f"no layer {name!r} with channels {channels}", mend="calibrate again"
                )
        names, picked = Names(model), dict[Key, ir.Value]()
        for name, node in nodes.items():  # in order: the first that reads x picks its channels
            if name in self.channels:
                _take_out(model, node, self.channels[name], picked, names)
        return ir.passes.PassResult(model, modified=bool(self.channels))


def _take_out(
    model: ir.Model,
    node: ir.Node,
    channels: Sequence[int],
    picked: dict[Key, ir.Value],
    names: Names,
) -> None:
    graph, source, index = model.graph, node.inputs[0], np.array(channels, np.int64)
    assert source is not None
    rows = array_of(
        graph, like(source, weight_of(model, layer_of(node))[index]), f"{node.name}.outliers"
    )
    key = (source, tuple(channels))
    if key not in picked:
        picked[key] = _pick(graph, node, source, index, names)
    part = ir.node("MatMul", [picked[key], rows], name=f"{node.name}.outliers")
    last = ending(node)
    old = last.outputs[0]
    add = ir.node("Add", [old, part.outputs[0]], name=f"{node.name}.outliers.add")
    made, new = part.outputs[0], add.outputs[0]
    made.name, made.shape, made.type = names.unique(f"{old.name}.outliers"), old.shape, old.type
    new.shape, new.type = old.shape, old.type
    graph.insert_after(last, [part, add])
    move(graph, old, new)
    add.replace_input_with(0, old)
    old.name, new.name = names.unique(f"{old.name}.without"), old.name
    change_weight(node, lambda w: _zeroed(w, index), "without")


def _pick(
    graph: ir.Graph, node: ir.Node, source: ir.Value, index: np.ndarray, names: Names
) -> ir.Value:
    indices = array_of(graph, index, f"{source.name}.outlier_channels")
    gather = ir.node("Gather", [source, indices], {"axis": -1}, name=f"{node.name}.outliers.pick")
    out = gather.outputs[0]
    dims = source.shape.dims if source.shape is not None else ()
    out.name, out.type = names.unique(f"{source.name}.outliers"), source.type
    out.shape = ir.Shape([*dims[:-1], len(index)]) if dims else None
    graph.insert_before(node, gather)
    return out


def _zeroed(weight: np.ndarray, index: np.ndarray) -> np.ndarray:
    made = weight.copy()
    made[index] = 0
    return made
