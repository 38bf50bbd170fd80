"""Which channels hang together: a dimension followed through the graph, by dataflow alone.

Each place (a value and one of its axes) bears labels, an integer an index: indices of one label are
one unit, removed together or not at all. Starting at the input of a weight MatMul, labels are
carried through every node that makes or reads a labelled value, until only weights are left.
Where a Reshape splits channels that differ into heads, they become one unit a head. This is the
dependency graph of DepGraph (arXiv 2301.12900) with arrays of labels for its index maps.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .carry import carry
from .facts import attribute_int, input_of, is_constant
from .linear import has_bias
from .regroup import Coarsen, LostError
from .sites import is_weighted

Labels = NDArray[np.int64]
#: A place as data: where labels are.
Place = tuple[ir.Value, int]
#: How often units may be joined before a dimension counts as not to be followed.
ROUNDS = 8


@dataclass(frozen=True)
class Group:
    """Units that can be removed from a model, and the layer that reads them.

    `consumer` is the weight MatMul or Gemm whose k inputs are in units as `labels` [k] says;
    `producers` make them. `heads` are units that lie on an axis of their own.
    """

    consumer: str
    kind: Literal["neurons", "heads"]
    units: int
    labels: Labels
    producers: tuple[str, ...]
    places: dict[Place, Labels] = field(repr=False)
    #: Names of graph inputs and outputs (a cache) that lose a part too.
    interface: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Channels that the consumer reads."""
        return len(self.labels)


@dataclass(frozen=True)
class Left:
    """A layer whose inputs are left alone, and why."""

    consumer: str
    reason: str


def groups(model: ir.Model) -> tuple[tuple[Group, ...], tuple[Left, ...]]:
    """Every group of units in graph order, and the layers whose inputs cannot lose any."""
    found: list[Group] = []
    left: list[Left] = []
    for node in model.graph:
        if not is_weighted(node):
            continue
        try:
            found.append(_group(node))
        except LostError as error:
            left.append(Left(node.name or "", str(error)))
    return tuple(found), tuple(left)


def _group(node: ir.Node) -> Group:
    source = node.inputs[0]
    assert source is not None
    if not is_constant(node.inputs[1]):
        raise LostError(
            "its weight is read through a Transpose: an embedding's, or `fold` was not run"
        )
    width = source.shape[-1] if source.shape is not None else None
    if not isinstance(width, int):
        raise LostError("the width of its input is not known")
    labels = np.arange(width, dtype=np.int64)
    for _ in range(ROUNDS):
        try:
            places = followed([(source, _last(source))], labels)
        except Coarsen as coarsen:
            labels = coarsen.joined(labels)
            continue
        return _checked(node, labels, places)
    raise LostError("its channels fall into no stable units")


def followed(
    starts: Sequence[Place], labels: Labels, skip: Collection[ir.Node] = ()
) -> dict[Place, Labels]:
    """Every place that must lose the indices that `starts` lose; nodes of `skip` are not asked.

    Raises:
        LostError: a node cannot be followed.
        Coarsen: some units have to be one.
    """
    places, waiting = dict[Place, Labels](), [(start, labels) for start in starts]
    while waiting:
        place, found = waiting.pop()
        if (found < 0).all():  # nothing is told yet: of which axis, neither
            continue
        merged = _merged(places.get(place), found)
        if merged is None:
            continue
        places[place] = merged
        for node in (each for each in _around(place[0]) if each not in skip):
            waiting += [(item.place, item.labels) for item in carry(node, place, merged)]
    if any((each < 0).any() for each in places.values()):
        raise LostError("a part of what it belongs to is not reached")
    return places


def _merged(known: Labels | None, found: Labels) -> Labels | None:
    """What is known with what was found; None where that is nothing new."""
    if known is None:
        return found
    if len(known) != len(found):
        raise LostError("one axis has two sizes")
    both = (known >= 0) & (found >= 0)
    if (known[both] != found[both]).any():
        raise Coarsen(known[both], found[both])
    merged = np.where(known >= 0, known, found)
    return None if (merged == known).all() else merged


def _around(value: ir.Value) -> Iterator[ir.Node]:
    producer = value.producer()
    if producer is not None:
        yield producer
    elif not is_constant(value) and not value.is_graph_input():
        raise LostError(f"{value.name} comes from outside its graph")
    if not is_constant(value):
        yield from dict.fromkeys(value.consumers())


def _checked(node: ir.Node, labels: Labels, places: dict[Place, Labels]) -> Group:
    consumers, producers = _roles(places)
    if consumers != [node]:
        names = ", ".join(each.name or "" for each in consumers if each is not node)
        raise LostError(f"its inputs are those of {names or 'no layer'} too")
    if not producers:
        raise LostError("no weight makes its inputs")
    for each in (node, *producers):
        weight = each.inputs[1]
        if weight is not None and len(weight.uses()) > 1:
            raise LostError(f"the weight of {each.name} is shared by {len(weight.uses())} nodes")
        if input_of(each, 2) is not None and not has_bias(each):
            raise LostError(f"what {each.name} adds is no constant bias: it cannot be corrected")
    units, relabelled = np.unique(labels, return_inverse=True)
    carried = {place: np.searchsorted(units, each) for place, each in places.items()}
    apart = any(axis != _last(value) for value, axis in places if not is_constant(value))
    return Group(
        consumer=node.name or "",
        kind="heads" if apart else "neurons",
        units=len(units),
        labels=relabelled.astype(np.int64),
        producers=tuple(each.name or "" for each in producers),
        places=carried,
        interface=_interface(places),
    )


def _interface(places: dict[Place, Labels]) -> tuple[str, ...]:
    """The graph's inputs and outputs that are labelled: a cache, which goes in and comes out.

    Its heads have an axis of their own: channels that go in and come out are what the model is for.
    """
    ends = {v: axis for v, axis in places if v.is_graph_input() or v.is_graph_output()}
    into, out = (
        any(test(v) for v in ends) for test in (ir.Value.is_graph_input, ir.Value.is_graph_output)
    )
    if ends and not (into and out and all(axis != _last(v) for v, axis in ends.items())):
        raise LostError(f"{next(iter(ends)).name} goes in or out of the model")
    return tuple(value.name or "" for value in ends)


def _roles(places: dict[Place, Labels]) -> tuple[list[ir.Node], list[ir.Node]]:
    """The nodes that sum over the units, and the weighted ones that make them, in no order."""
    consumers, producers = dict[ir.Node, None](), dict[ir.Node, None]()
    for value, axis in places:
        if not is_constant(value):
            consumers |= dict.fromkeys(n for n in value.consumers() if _sums(n, value, axis))
        producer = value.producer()
        if producer is not None and is_weighted(producer) and axis == _last(value):
            producers[producer] = None
    return list(consumers), list(producers)


def _sums(node: ir.Node, value: ir.Value, axis: int) -> bool:
    """Whether a product takes the axis for its inner one, be it a layer or not."""
    if node.op_type not in ("MatMul", "Gemm"):
        return False
    end = _last(value)
    turned = [attribute_int(node, name, 0) for name in ("transA", "transB")]
    inner = (end - 1 if turned[0] else end, end if turned[1] else end - 1)
    return any(node.inputs[at] is value and axis == inner[at] for at in (0, 1))


def _last(value: ir.Value) -> int:
    return len(value.shape) - 1 if value.shape is not None else -1
