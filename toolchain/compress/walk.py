"""A plan carried out layer by layer, each corrected for what the layers before it changed.

The dense model and the pruned one are run side by side, a stretch at a time. In each stretch units
are removed; then the layers that make what is left, and the one that reads it, get the weights that
give the dense model's activations best from the pruned model's own (least squares). The reader's
target is the dense residual stream less the pruned one's: what earlier layers spoiled is made good.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...calibration.moments import Moments
from ...calibration.removal import refitted
from ...passes import load
from ...passes.coupling import Group
from ...passes.facts import is_constant
from ...passes.infer import infer
from ...passes.linear import ending
from ...passes.refit import Refit, Refitted
from ...passes.remove import Remove
from ...passes.sites import by_name, layer_of, weight_of
from .cuts import narrowing_of
from .rows import rows
from .shelf import Shelf, Spill
from .stretch import Array, Order, opened
from .subject import Plan, Subject


@dataclass(frozen=True)
class Step:
    """A group, the tensor its output ends in, what else is added there, and where that is made."""

    group: Group
    target: str
    other: str | None
    place: int


class Walk:
    """The dense model and the one that is pruned, at the same place of the graph."""

    def __init__(
        self, subject: Subject, groups: Sequence[Group], folder: Path, scratch: Path | None = None
    ) -> None:
        """Activations lie in `folder`, changed weights in `scratch`, or else in memory."""
        self._subject, self._folder = subject, folder
        self._spill = Spill(scratch) if scratch else None
        self.dense, self.pruned = load(subject.model), load(subject.model)
        for model in (self.dense, self.pruned):
            by_name(model)
            infer(model)
        self._order = Order(self.dense)
        self.steps = sorted(
            (_step(self.dense, self._order, each) for each in groups), key=lambda s: s.place
        )
        self._wide = Shelf(subject.fit, folder / "wide")
        self._slim = Shelf(subject.fit, folder / "slim")

    def prune(self, plan: Plan, watch: Callable[[str], object] = lambda _: None) -> ir.Model:
        """The pruned model: every group of the plan keeps its units and no others."""
        for index, step in enumerate(self.steps):
            if step.group.consumer in plan:
                watch(step.group.consumer)
                self._change(step, plan[step.group.consumer])
            if index + 1 < len(self.steps) and self.steps[index + 1].place > step.place:
                self._advance(step.place)  # and not past what the next one has yet to change
        return self.pruned

    def _change(self, step: Step, kept: tuple[int, ...]) -> None:
        group = step.group
        if kept:
            Remove({group.consumer: kept})(self.pruned)
            self._slim.narrow = self._slim.narrow.then(
                narrowing_of([group], {group.consumer: kept})
            )
        makers = {name: _end(self.dense, name) for name in group.producers} if kept else {}
        with opened(self.dense, self._wide[0], [step.target, *makers.values()]) as call:
            wanted = Shelf([{}] * len(self._wide), self._folder / "wanted")
            for index, arrays in enumerate(self._wide):
                wanted.put(index, call(arrays))
        if kept:
            self._refit_makers(group, makers, kept, wanted)
        self._refit_reader(step, kept, wanted)
        if not kept:
            Remove({group.consumer: ()})(self.pruned)
        if self._spill:
            self._spill(self.pruned)
        infer(self.pruned)

    def _refit_makers(
        self,
        group: Group,
        makers: Mapping[str, str],
        kept: tuple[int, ...],
        wanted: Shelf,
    ) -> None:
        nodes = by_name(self.pruned)
        sources = {name: _name(nodes[name].inputs[0]) for name in makers}
        columns = {name: _columns(self.dense, group, name, kept) for name in makers}
        seen: dict[str, Moments] = {}
        with opened(self.pruned, self._slim[0], list(sources.values())) as call:
            for arrays, targets in zip(self._slim, wanted, strict=True):
                found = call(arrays)
                for name, end in makers.items():
                    x = rows(found[sources[name]], arrays, self._subject.mask)
                    t = rows(targets[end], arrays, self._subject.mask)[:, columns[name]]
                    _moments(seen, name, x, t).add(x, t)
        self._solve({name: seen[name] for name in makers})

    def _refit_reader(self, step: Step, kept: tuple[int, ...], wanted: Shelf) -> None:
        node = by_name(self.pruned)[step.group.consumer]
        source = _name(node.inputs[0])
        other = self._other(step, node)
        constant = ir.convenience.get_const_tensor(other) if other is not None else None
        asked = [source, *([_name(other)] if other is not None and constant is None else [])]
        seen: dict[str, Moments] = {}
        name = step.group.consumer
        with opened(self.pruned, self._slim[0], asked) as call:
            for arrays, targets in zip(self._slim, wanted, strict=True):
                found, target = call(arrays), targets[step.target]
                beside = constant.numpy() if constant is not None else found.get(_name(other), 0)
                left = target - beside
                x = rows(found[source], arrays, self._subject.mask)
                t = rows(np.broadcast_to(left, target.shape), arrays, self._subject.mask)
                _moments(seen, name, x, t).add(x, t)
        self._solve(seen, nothing=not kept)

    def _other(self, step: Step, node: ir.Node) -> ir.Value | None:
        """What is added to the layer now: what was, or the constant that a branch left that went.

        Such a constant is the layer's own bias where it has no other.
        """
        end = ending(node).outputs[0]
        if step.other is None or end.name == step.target:
            return None
        total = end.consumers()[0]
        return total.inputs[0] if total.inputs[1] is end else total.inputs[1]

    def _solve(self, seen: Mapping[str, Moments], nothing: bool = False) -> None:
        """Least squares with a free bias, drawn to the weights as they are."""
        nodes, made = by_name(self.pruned), dict[str, Refitted]()
        for name, moments in seen.items():
            layer = layer_of(nodes[name])
            before = weight_of(self.pruned, layer).astype(np.float64)
            gram, cross = moments.centred()
            every = np.arange(layer.k)
            weight = refitted(gram, cross, before, every, moments.rows)
            weight = np.zeros_like(weight) if nothing else weight
            mean, target = moments.means()
            offset = target - mean @ weight - bias_of(self.pruned, nodes[name])
            made[name] = Refitted(weight.astype(np.float32), offset.astype(np.float32))
        Refit(made)(self.pruned)

    def _advance(self, place: int) -> None:
        names = self._order.alive(place)
        if not names:
            return
        for model, shelf in ((self.dense, self._wide), (self.pruned, self._slim)):
            made = {value.name for node in model.graph for value in node.outputs}
            with opened(model, shelf[0], [name for name in names if name in made]) as call:
                for index, arrays in enumerate(shelf):
                    shelf.put(index, call(arrays))


def _moments(seen: dict[str, Moments], name: str, x: Array, t: Array) -> Moments:
    if name not in seen:
        seen[name] = Moments(x.shape[1], t.shape[1])
    return seen[name]


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _end(model: ir.Model, name: str) -> str:
    return _name(ending(by_name(model)[name]).outputs[0])


def bias_of(model: ir.Model, node: ir.Node) -> NDArray[np.float64] | float:
    """The constant bias of a layer as it is."""
    last = ending(node)
    if last is node and node.op_type == "MatMul":
        return 0.0
    value = node.inputs[2] if last is node else next(v for v in last.inputs if is_constant(v))
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return 0.0 if tensor is None else tensor.numpy().astype(np.float64)


def _columns(model: ir.Model, group: Group, name: str, kept: tuple[int, ...]) -> NDArray[np.int64]:
    """The columns of a producer's output that stay."""
    out = by_name(model)[name].outputs[0]
    labels = next(
        labels
        for (value, axis), labels in group.places.items()
        if value.name == out.name and axis == len(value.shape or ()) - 1
    )
    return np.flatnonzero(np.isin(labels, kept))


def _step(model: ir.Model, order: Order, group: Group) -> Step:
    node = by_name(model)[group.consumer]
    value = ending(node).outputs[0]
    readers = value.consumers()
    if len(value.uses()) == 1 and readers[0].op_type == "Add" and not value.is_graph_output():
        total = readers[0]
        other = total.inputs[0] if total.inputs[1] is value else total.inputs[1]
        same = other is not None and not is_constant(other) and other.shape == value.shape
        if same:
            made = total.outputs[0]
            return Step(group, _name(made), _name(other), order.place(made))
    return Step(group, _name(value), None, order.place(value))
