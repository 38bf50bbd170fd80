"""A model run a stretch at a time: from what is known at one place to what is asked at the next."""

import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...deploy.ort_session import Settings, open_session
from ...passes import save
from ...passes.facts import is_constant

Array = NDArray[Any]
Arrays = dict[str, Array]
Feeds = Sequence[Mapping[str, Array]]
Call = Callable[[Mapping[str, Array]], Arrays]


@contextmanager
def opened(model: ir.Model, known: Iterable[str], asked: Sequence[str]) -> Generator[Call]:
    """The part of a model between known tensors and asked ones, as a function of the known.

    Raises:
        BuildError: ONNX Runtime cannot load the part.
    """
    known = set(known)
    here = [name for name in dict.fromkeys(asked) if name in known]
    made = [name for name in dict.fromkeys(asked) if name not in known]
    if not made:
        yield lambda feed: {name: feed[name] for name in here}
        return
    part, inputs = _part(model, known, made)
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder:
        save(part, Path(folder))
        session = open_session(Path(folder) / "model.onnx", Settings(spinning=False))

        def call(feed: Mapping[str, Array]) -> Arrays:
            found = session.run(made, {name: feed[name] for name in inputs})
            arrays = dict(zip(made, map(np.asarray, found), strict=True))
            return arrays | {name: feed[name] for name in here}

        yield call


def _part(model: ir.Model, known: set[str], asked: Sequence[str]) -> tuple[ir.Model, list[str]]:
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values |= {value.name: value for node in graph for value in node.outputs}
    inputs = _needed(values, known, asked)
    part = ir.convenience.extract(
        graph, [values[name] for name in inputs], [values[name] for name in asked]
    )
    return ir.Model(part, ir_version=model.ir_version), inputs


def _needed(
    values: Mapping[str | None, ir.Value], known: set[str], asked: Sequence[str]
) -> list[str]:
    """The known tensors that the asked ones are computed from."""
    waiting, seen, found = [values[name] for name in asked], set[ir.Value](), dict[str, None]()
    while waiting:
        value = waiting.pop()
        if value in seen or is_constant(value):
            continue
        seen.add(value)
        producer = value.producer()
        if value.name in known or producer is None:
            found[value.name or ""] = None
            continue
        waiting += [each for each in producer.inputs if each is not None]
    return list(found)


class Order:
    """The nodes of a graph in order, and which tensors live on after each place."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._nodes = list(model.graph)
        self._place = {node: index for index, node in enumerate(self._nodes)}

    def place(self, value: ir.Value) -> int:
        """Where a tensor is made; -1 for an input."""
        producer = value.producer()
        return -1 if producer is None else self._place[producer]

    def alive(self, place: int) -> list[str]:
        """What is made at or before a place and read behind it."""
        found = dict[str, None]()
        for node in self._nodes[: place + 1]:
            for value in node.outputs:
                if any(self._place.get(each, -1) > place for each in value.consumers()):
                    found[value.name or ""] = None
        return list(found)
