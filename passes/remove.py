"""The pass `remove`: units go, with every weight, shape and cache that belongs to them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .carried import Place, values_of
from .carry import carry
from .contract import Contract
from .coupling import Group, groups
from .facts import attribute_int, input_of, ints, is_constant
from .infer import infer
from .kinds import Pass
from .linear import array_of, drop_unused, ending, initializer, like, move
from .sites import layer_of
from .weight_rules import changed

_LARGE = 1024


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Remove(Pass):
    """Keeps only the named units of groups, known by the layer that reads them.

    `kept` holds the indices of the units that stay, ascending; a group of none is replaced by its
    layer's bias, where the layer's output is only added to others.
    """

    kept: Mapping[str, tuple[int, ...]]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove the units.

        Raises:
            PassError: no group has that name, a unit is not of it, or all of it has to stay.
        """
        NameFixPass()(model)
        infer(model)
        found = {group.consumer: group for group in groups(model)[0]}
        for name, kept in self.kept.items():
            if name not in found:
                raise PassError(f"no units that {name!r} reads can be removed", mend="plan again")
            _remove(model, found[name], kept)
        drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(self.kept))


def _remove(model: ir.Model, group: Group, kept: tuple[int, ...]) -> None:
    if any(not 0 <= unit < group.units for unit in kept) or list(kept) != sorted(set(kept)):
        raise PassError(f"{group.consumer} has units 0 to {group.units - 1}", mend="plan again")
    if not kept:
        _bypass(model, group)
        return
    stays = np.zeros(group.units, bool)
    stays[list(kept)] = True
    narrow(model, {place: stays[labels] for place, labels in group.places.items()})


Masks = Mapping[Place, NDArray[np.bool_]]
#: Constants without what a mask, by its bytes, does not keep of an axis.
Made = dict[tuple[ir.Value, int, bytes], ir.Value]


def narrow(model: ir.Model, masks: Masks, more: Collection[ir.Node] = ()) -> None:
    """Take what the masks do not keep off every place, in the nodes around and in `more`."""
    around = [node for value, _ in masks for node in _nodes(value)]
    made: Made = {}
    for node in dict.fromkeys((*around, *more)):
        told = dict(masks) if node in more else _told(node, masks)
        _narrow_constants(model.graph, node, told, made)
        if node.op_type in ("Reshape", "Expand"):
            _resize(model.graph, node, masks)
        elif node.op_type == "Split":
            _resplit(model.graph, node, masks)
    for (value, axis), mask in masks.items():
        if value.shape is not None and not is_constant(value):
            dims = list(value.shape)
            dims[axis] = int(mask.sum())
            value.shape = ir.Shape(dims)
    NameFixPass()(model)  # a size that is set may have been set before, under the same name


def _nodes(value: ir.Value) -> Iterator[ir.Node]:
    producer = value.producer()
    if producer is not None:
        yield producer
    if not is_constant(value):
        yield from value.consumers()


def _told(node: ir.Node, masks: Masks) -> dict[Place, NDArray[np.bool_]]:
    """What masks of its other values say of a node's constants.

    Not what was found of them elsewhere: one constant may be read whole by another node, as equal
    biases that were made one are, or be another by now, as a weight between two groups is.
    """
    told: dict[Place, NDArray[np.bool_]] = {}
    for value in (each for each in dict.fromkeys(values_of(node)) if not is_constant(each)):
        for axis, mask in _masked(value, masks):
            for item in carry(node, (value, axis), mask.astype(np.int64)):
                if is_constant(item.place[0]):
                    told[item.place] = item.labels > 0
    return told


def _narrow_constants(graph: ir.Graph, node: ir.Node, told: Masks, made: Made) -> None:
    """Give a node constants of the new widths; `made` are those made before, of others."""
    for index, value in enumerate(node.inputs):
        if value is None or not is_constant(value):
            continue
        now = value
        for axis, mask in _masked(value, told):
            key = (now, axis, mask.tobytes())
            made[key] = made.get(key) or _sliced(graph, now, axis, mask)
            now = made[key]
        if now is not value:
            node.replace_input_with(index, now)


def _sliced(graph: ir.Graph, value: ir.Value, axis: int, mask: NDArray[np.bool_]) -> ir.Value:
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    shape = list(tensor.shape.numpy())
    shape[axis] = int(mask.sum())
    name = f"{value.name}.kept"

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.compress(mask, array, axis=axis))

    if tensor.size <= _LARGE:
        return array_of(graph, cut(tensor.numpy()), name)
    return initializer(graph, changed(tensor, cut, tuple(map(int, shape)), name), name)


def _resize(graph: ir.Graph, node: ir.Node, masks: Masks) -> None:
    """A shape that names the old size."""
    wanted, out = node.inputs[1], node.outputs[0]
    if wanted is None or out.shape is None:
        return
    asked = ints(wanted)
    ahead = len(out.shape) - (len(out.shape) if asked is None else len(asked))
    sizes = {axis - ahead: int(m.sum()) for axis, m in _masked(out, masks) if axis >= ahead}
    if asked is None:
        for axis, size in sizes.items():
            node.replace_input_with(1, _with_size(graph, node, axis, size))
        return
    shape = list(asked)
    for axis, size in sizes.items():
        shape[axis] = size if shape[axis] > 0 else shape[axis]
    if shape != list(asked):
        made = array_of(graph, np.array(shape, np.int64), f"{wanted.name}.kept")
        node.replace_input_with(1, made)


def _masked(value: ir.Value, masks: Masks) -> list[tuple[int, NDArray[np.bool_]]]:
    axes = range(len(value.shape or ()))
    return [(axis, masks[value, axis]) for axis in axes if (value, axis) in masks]


def _with_size(graph: ir.Graph, node: ir.Node, axis: int, size: int) -> ir.Value:
    """A shape that is computed when it runs, with one of its numbers set."""
    old, name = node.inputs[1], f"{node.name}.size{axis}"
    place = array_of(graph, np.array([axis], np.int64), f"{name}.place")
    number = array_of(graph, np.array([size], np.int64), f"{name}.number")
    setting = ir.node("ScatterElements", [old, place, number], name=name)
    made = setting.outputs[0]
    made.name, made.type = f"{name}.shape", ir.TensorType(ir.DataType.INT64)
    if old is not None:
        made.shape = old.shape
    graph.insert_before(node, setting)
    return made


def _resplit(graph: ir.Graph, node: ir.Node, masks: Masks) -> None:
    """The sizes of a Split's parts along the axis."""
    source = node.inputs[0]
    assert source is not None
    assert source.shape is not None
    axis = attribute_int(node, "axis", 0) % len(source.shape)
    parts = [mask for value in node.outputs if (mask := masks.get((value, axis))) is not None]
    if (source, axis) not in masks or len(parts) != len(node.outputs):
        return
    sizes = np.array([int(part.sum()) for part in parts], np.int64)
    node.attributes.pop("num_outputs", None)
    node.resize_inputs(2)
    node.replace_input_with(1, array_of(graph, sizes, f"{node.name}.sizes"))


def droppable(model: ir.Model, group: Group) -> bool:
    """Whether all units of a group may go: its layer's output is only added to others."""
    node = _named(model, group.consumer)
    out = ending(node).outputs[0]
    ends = [*model.graph.inputs, *model.graph.outputs]
    cache = [value for value in ends if value.name in group.interface]
    return _only_added(out) and not any(map(_measured, cache))


def _measured(value: ir.Value) -> bool:
    """Whether somebody asks how long a cache is: then it has to stay."""
    producer = value.producer()
    around = [value, *(producer.inputs if producer is not None else ())]
    readers = [node for each in around if each is not None for node in each.consumers()]
    return any(node.op_type in ("Shape", "Size") for node in readers)


def _only_added(out: ir.Value) -> bool:
    uses = () if out.is_graph_output() else out.uses()
    return bool(uses) and all(_added(use.node, out) for use in uses)


def _added(node: ir.Node, out: ir.Value) -> bool:
    """Whether a node adds a value to one of its shape, or to what a layer beside it has left."""
    if node.op_type != "Add" or node.domain:
        return False
    other = node.inputs[0] if node.inputs[1] is out else node.inputs[1]
    if is_constant(other):
        return _only_added(node.outputs[0])
    return other is not None and other is not out and other.shape == out.shape


def _bypass(model: ir.Model, group: Group) -> None:
    if not droppable(model, group):
        raise PassError(f"{group.consumer} cannot lose all of its inputs", mend="keep one unit")
    node = _named(model, group.consumer)
    last = ending(node)
    out = last.outputs[0]
    _put(model.graph, out, _bias_of(last) or _zeros(model.graph, node, out))
    for output in [each for each in model.graph.outputs if each.name in group.interface]:
        model.graph.outputs.remove(output)
    drop_unused(model)
    for value in [each for each in model.graph.inputs if each.name in group.interface]:
        if value.uses():
            raise PassError(f"the cache {value.name} is read elsewhere", mend="keep one unit")
        model.graph.inputs.remove(value)


def _put(graph: ir.Graph, out: ir.Value, left: ir.Value) -> None:
    """Let a constant stand for a value, and its sum with another constant for their sum."""
    readers = list(dict.fromkeys(use.node for use in out.uses()))
    move(graph, out, left)
    for node in readers:
        if all(is_constant(each) for each in node.inputs):
            one, two = (ir.convenience.get_const_tensor(v) for v in node.inputs if v is not None)
            assert one is not None
            assert two is not None
            total = array_of(graph, one.numpy() + two.numpy(), f"{node.name}.sum")
            _put(graph, node.outputs[0], total)


def _bias_of(last: ir.Node) -> ir.Value | None:
    """The constant that a layer adds at its end."""
    if last.op_type == "Gemm":
        return input_of(last, 2)
    if last.op_type == "MatMul":
        return None
    return next(value for value in last.inputs if is_constant(value))


def _zeros(graph: ir.Graph, node: ir.Node, out: ir.Value) -> ir.Value:
    return array_of(graph, like(out, np.zeros(layer_of(node).n)), f"{node.name}.none")


def _named(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)
