"""One model whose pruned weights are inputs: any plan's loss for the price of a run."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...deploy.ort_session import Settings, open_session
from ...passes import load, save
from ...passes.linear import change_bias
from ...passes.sites import by_name, layer_of
from .stretch import Array, Arrays
from .subject import Subject

#: What a layer's weight [k, n] becomes and what its bias [n] gains.
Changed = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
#: Threads that wait do not spin: runs are short and numpy works between them.
QUIET = Settings(spinning=False)
#: Held-out batches that losses are measured on, at most.
BATCHES = 12


class Trial(AbstractContextManager["Trial"]):
    """Measures the loss at the outputs with other weights in some layers."""

    def __init__(self, subject: Subject, layers: Sequence[str]) -> None:
        self._subject, self._layers = subject, layers
        self._aside = tempfile.TemporaryDirectory(prefix="llmdeploy-")
        #: Where what belongs to the trial may be kept.
        self.folder = Path(self._aside.name)
        self._inputs: dict[str, tuple[str, str, bool, NDArray[Any]]] = {}
        self._run = self._opened()
        self._feeds = list(subject.held_out[:BATCHES])
        self._wanted = [self._kept(self._run({**feed})) for feed in self._feeds]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._aside.cleanup()

    def loss(self, changed: Mapping[str, Changed]) -> float:
        """The loss against the model as it was, with these layers changed."""
        given: dict[str, Array] = {}
        for name, (weight, offset) in changed.items():
            value, bias, turned, before = self._inputs[name]
            given[value] = np.ascontiguousarray(weight.T if turned else weight, before.dtype)
            given[bias] = (before + offset).astype(before.dtype)
        found = [self._kept(self._run({**feed, **given})) for feed in self._feeds]
        return self._subject.loss(self._wanted, found, self._feeds)

    def _kept(self, outputs: Arrays) -> Arrays:
        return self._subject.loss.kept(outputs)

    def _opened(self) -> Callable[[Mapping[str, Array]], Arrays]:
        model = load(self._subject.model)
        nodes = by_name(model)
        for name in self._layers:
            self._open(model, nodes[name])
        save(model, self.folder)
        session = open_session(self.folder / "model.onnx", QUIET)
        names = [output.name for output in session.get_outputs()]
        names = [name for name in names if name in self._subject.logits] or names

        def run(feed: Mapping[str, Array]) -> Arrays:
            return dict(zip(names, map(np.asarray, session.run(names, feed)), strict=True))

        return run

    def _open(self, model: ir.Model, node: ir.Node) -> None:
        """Make inputs of a layer's weight and bias, which stand for themselves when not given."""
        before = set(model.graph.initializers)
        layer = layer_of(node)
        arrays = list[NDArray[Any]]()

        def noted(bias: NDArray[Any]) -> NDArray[Any]:
            arrays.append(bias)
            return bias

        change_bias(node, noted, layer.n, "trial")
        (bias,) = [name for name in model.graph.initializers if name not in before]
        for name in (layer.weight, bias):
            model.graph.inputs.append(model.graph.initializers[name])
        self._inputs[node.name or ""] = (layer.weight, bias, layer.transposed, arrays[0])
