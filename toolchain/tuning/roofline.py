"""Whether a model's calls are bound by multiplying or by reading weights, on measured hardware."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...deploy.backend import Feed
from ...deploy.ort_session import KEEP
from .hardware import Hardware

#: Float elements that go in and out of a layer are moved once each.
FLOAT_BYTES = 4


class Shape(BaseModel):
    """What is known of a graph before it is run: its weight MatMuls, and all its weights.

    `macs` are multiply-adds a token, `moved` floats in and out of layers a token, `layer_bytes`
    those of their weights and `weight_bytes` of all initializers. `expert_bytes` are of experts'
    weights beside; a token goes through the share `routed` of them.
    """

    model_config = ConfigDict(frozen=True)

    layers: int
    macs: int
    moved: int
    layer_bytes: int
    weight_bytes: int
    cached: bool
    #: Those of `macs` that make the logits of a vocabulary.
    head_macs: int = 0
    expert_bytes: int = 0
    routed: float = 1.0

    @property
    def headed(self) -> bool:
        """Whether it ends in such logits."""
        return self.head_macs > 0

    def read(self, tokens: int) -> float:
        """Bytes of weights that a call reads, its tokens sent to experts evenly."""
        return self.layer_bytes + self.expert_bytes * min(1.0, self.routed * tokens)


class Call(BaseModel):
    """A line of the roofline: seconds that a call takes at least, by either bound."""

    model_config = ConfigDict(frozen=True)

    shape: str
    phase: str
    rows: int
    tokens: int
    flops: float
    bytes: float
    compute_s: float
    memory_s: float

    @property
    def bound(self) -> str:
        """What it waits for: `compute` or `memory`."""
        return "compute" if self.compute_s >= self.memory_s else "memory"

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes


def shape_of(path: Path, cached: bool) -> Shape:
    """The facts of an optimised graph; no weight is read."""
    from ...passes import load
    from ...passes.experts import stacks
    from ...passes.sites import find
    from ...passes.store import tensors

    model = load(path)
    layers = [layer for site in find(model) for layer in site.layers]
    macs = sum(layer.k * layer.n for layer in layers)
    experts = stacks(model)
    elements = sum(stack.elements for stack in experts)
    gone_through = sum(stack.elements * stack.share for stack in experts)
    return Shape(
        layers=len(layers),
        macs=macs + round(gone_through),
        moved=sum(layer.k + layer.n for layer in layers),
        layer_bytes=FLOAT_BYTES * macs,
        weight_bytes=sum(tensor.nbytes for tensor in tensors(model)),
        cached=cached,
        head_macs=sum(layer.k * layer.n for layer in layers if layer.head),
        expert_bytes=FLOAT_BYTES * elements,
        routed=gone_through / elements if elements else 1.0,
    )


def roofline(
    shape: Shape, phases: Mapping[str, Mapping[str, Feed]], hardware: Hardware
) -> tuple[Call, ...]:
    """A line a phase and feed; attention's own products, a few percent at these lengths, are not
    counted.
    """
    return tuple(
        _call(shape, phase, name, feed, hardware)
        for phase, feeds in phases.items()
        for name, feed in feeds.items()
    )


def _call(shape: Shape, phase: str, name: str, feed: Feed, hardware: Hardware) -> Call:
    rows, tokens = _tokens(feed)
    spared = shape.head_macs * (tokens - rows) if KEEP in feed else 0
    flops = 2.0 * (shape.macs * tokens - spared)
    weights = shape.read(tokens)
    return Call(
        shape=name,
        phase=phase,
        rows=rows,
        tokens=tokens,
        flops=flops,
        bytes=weights + FLOAT_BYTES * shape.moved * tokens,
        compute_s=flops / hardware.flops,
        memory_s=weights / hardware.bytes_per_s,
    )


def _tokens(feed: Feed) -> tuple[int, int]:
    """Rows of a feed, and what of it passes through a layer: the elements of its ids."""
    ids = [np.shape(array) for array in feed.values() if np.asarray(array).dtype.kind in "iu"]
    two = [each for each in ids if len(each) == 2]
    least = min(two, key=lambda each: each[0] * each[1], default=None)
    if least is not None:
        return least[0], least[0] * least[1]
    first = np.shape(next(iter(feed.values())))
    return first[0] if first else 1, first[0] if first else 1
