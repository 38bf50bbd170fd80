"""The loss of a model without each of its layers in turn, a layer of it in memory at a time.

All models that lack one more layer go through the graph side by side: they part where the layer
is that they lack, and are the same before it. What lies between two layers of each is on disk.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...passes.coupling import Group
from ...passes.linear import ending
from ...passes.sites import by_name
from .known import Known
from .shelf import Shelf
from .stretch import Array, Arrays, Order, opened
from .subject import Subject
from .trial import BATCHES
from .walk import bias_of

#: A layer: its attention and the neurons behind it.
Layer = tuple[Group, Group]


class Skips:
    """A model, the layers it can do without, and what each adds to every token in its place."""

    def __init__(
        self, subject: Subject, model: ir.Model, layers: Sequence[Layer], known: Known, folder: Path
    ) -> None:
        """Activations lie in `folder`."""
        self._model, self._folder, self._loss = model, folder, subject.loss
        self._feeds = list(subject.held_out[:BATCHES])
        order, nodes = Order(model), by_name(model)
        outputs = [str(value.name) for value in model.graph.outputs]
        self._outputs = [name for name in outputs if name in subject.logits] or outputs
        made = {value.name: order.place(value) for value in model.graph.outputs}
        self._ends = [[ending(nodes[each.consumer]).outputs[0] for each in one] for one in layers]
        self._means = {
            str(end.name): _mean(model, nodes[group.consumer], known)
            for layer, ends in zip(layers, self._ends, strict=True)
            for group, end in zip(layer, ends, strict=True)
        }
        #: What is kept behind each layer: what is read later, and outputs that are made by then.
        self._kept = list[list[str]]()
        for ends in self._ends:
            place = max(order.place(use.outputs[0]) for end in ends for use in end.consumers())
            early = [name for name in self._outputs if 0 <= made[name] <= place]
            self._kept.append(list(dict.fromkeys((*order.alive(place), *early))))
        self._shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in self._feeds]
        self._wanted = self._dense()

    def losses(self, gone: Collection[int]) -> dict[int, float]:
        """The loss without those that are gone and one more, by the place of the one more."""
        base, lacking = self._shelf("base"), dict[int, Shelf]()
        last = max(at for at in range(len(self._ends)) if at not in gone)
        for at in range(len(self._ends)):
            onward = [*lacking.values(), *([base] if at < last else [])]
            if at in gone:
                self._skip(at, [(each, each) for each in onward])
                continue
            more = self._shelf(str(at))
            self._skip(at, [(base, more)])
            self._run(at, onward)
            lacking[at] = more
        return {at: self._loss(self._wanted, self._ended(each), self._feeds)
                for at, each in lacking.items()}  # fmt: skip

    def _shelf(self, name: str) -> Shelf:
        return Shelf(self._feeds, self._folder / name)

    def _dense(self) -> list[Arrays]:
        """The outputs of the whole model, the shapes of what layers add being noted on the way."""
        base = self._shelf("base")
        for at, ends in enumerate(self._ends):
            names = [str(end.name) for end in ends]
            with opened(self._model, base[0], [*self._kept[at], *names]) as call:
                for index, arrays in enumerate(base):
                    found = call(arrays)
                    self._shapes[index] |= {name: found[name].shape for name in names}
                    base.put(index, {name: found[name] for name in self._kept[at]})
        return self._ended(base)

    def _run(self, at: int, shelves: Sequence[Shelf]) -> None:
        """Take each through the stretch that ends with a layer."""
        if not shelves:
            return
        with opened(self._model, shelves[0][0], self._kept[at]) as call:
            for shelf in shelves:
                for index, arrays in enumerate(shelf):
                    shelf.put(index, call(arrays))

    def _skip(self, at: int, shelves: Iterable[tuple[Shelf, Shelf]]) -> None:
        """Take one to another through the same stretch, where the layer adds its mean."""
        names = [str(end.name) for end in self._ends[at]]
        with ExitStack() as stack:
            call = None
            for source, target in shelves:
                for index, arrays in enumerate(source):
                    given = arrays | {name: self._added(name, index) for name in names}
                    call = call or stack.enter_context(opened(self._model, given, self._kept[at]))
                    target.put(index, call(given))

    def _added(self, name: str, index: int) -> Array:
        return np.broadcast_to(self._means[name], self._shapes[index][name])

    def _ended(self, shelf: Shelf) -> list[Arrays]:
        with opened(self._model, shelf[0], self._outputs) as call:
            return [self._loss.kept(call(arrays)) for arrays in shelf]


def _mean(model: ir.Model, node: ir.Node, known: Known) -> Array:
    """What a layer gives for the mean of its inputs, [n]."""
    name = str(node.name)
    return (known.means[name] @ known.weights[name] + bias_of(model, node)).astype(np.float32)
