"""A model run block by block with the weights of earlier blocks as they were rounded.

What earlier layers lost is then in what a later one is rounded for, as GPTQ has it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .blocks import Block, model_of, split
from .forward import Arrays, Between, Feed, fits, inputs_of, outputs_of, session_of


class Chain:
    """The blocks of the model at `path`, each run on what the rounded blocks before it gave.

    `tensors` are what is wanted of them; what lies between blocks waits in `folder`; a block has
    at most `size` bytes of weights, and no cut parts the pairs in `together`.

    Raises:
        ConfigError: a feed's names or shapes are not the model's inputs.
    """

    def __init__(
        self,
        path: Path,
        tensors: Sequence[str],
        feeds: Sequence[Feed],
        folder: Path,
        size: int,
        together: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.weights, self.feeds, self.tensors = path.parent, feeds, tensors
        self.model = onnx.load(path, load_external_data=False)
        for index, feed in enumerate(feeds):
            fits(inputs_of(self.model), feed, index)
        self._plan = split(self.model, tensors, together, size)
        self.wires = Between(folder)
        #: Rounded weights that no block has read yet: a cut may lie before their MatMul.
        self.pending: dict[str, NDArray[Any]] = {}

    def __iter__(self) -> Iterator["Link"]:
        given = [name for name in self.tensors if name in inputs_of(self.model)]
        for place, block in enumerate(self._plan):
            later = {name for each in self._plan[place + 1 :] for name in each.reads}
            first = given if place == 0 else []
            yield Link(self, block, (*first, *block.outputs), last=not later)
            self.wires.keep(later)


class Link:
    """One block of a `Chain`; `outputs` are the wanted tensors that it gives."""

    def __init__(self, chain: Chain, block: Block, outputs: tuple[str, ...], *, last: bool) -> None:
        self._chain, self._block, self.outputs, self._last = chain, block, outputs, last

    def run(self) -> Iterator[Arrays]:
        """The wanted tensors of each feed, by the block's own weights."""
        session = self._session()
        for index, feed in enumerate(self._chain.feeds):
            found = self._found(session, index)
            yield {n: found[n] if n in found else np.asarray(feed[n]) for n in self.outputs}

    def advance(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Give later blocks what this one gives with these weights, by name, for its own."""
        self._chain.pending |= weights
        if self._last:
            return
        session = self._session()
        for index in range(len(self._chain.feeds)):
            found = self._found(session, index)
            self._chain.wires.write(index, {name: found[name] for name in self._block.gives})
        for name in self._read():
            self._chain.pending.pop(name, None)

    def _read(self) -> set[str]:
        nodes = (self._chain.model.graph.node[index] for index in self._block.nodes)
        return {name for node in nodes for name in node.input}

    def _session(self) -> Any:
        model = model_of(self._chain.model, self._block, self._chain.wires.kinds)
        pending = self._chain.pending
        for place, tensor in enumerate(model.graph.initializer):
            if tensor.name in pending:
                new = onnx.numpy_helper.from_array(pending[tensor.name], tensor.name)
                model.graph.initializer[place].CopyFrom(new)
        return session_of(model, self._chain.weights)

    def _found(self, session: Any, index: int) -> Arrays:
        feed = self._chain.feeds[index]
        taken = {item.name for item in session.get_inputs()}
        arrays: Arrays = {n: np.asarray(array) for n, array in feed.items() if n in taken}
        arrays |= {name: self._chain.wires.read(index, name) for name in self._block.reads}
        return outputs_of(session, [o.name for o in session.get_outputs()], arrays, index)
