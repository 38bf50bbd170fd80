"""Translation validation: one application of one rule, run before and after on its own region.

Necula, "Translation validation for an optimizing compiler", PLDI 2000, by testing: what is cut
out is compared on drawn inputs. An input drawn freely is more general than what the graph would
feed, so where the two agree they agree in the graph; where they differ, the cut is made deeper,
until it reaches the graph's inputs.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from .contract import Contract, Outputs, error
from .evaluator import evaluator
from .facts import content
from .region import Region, cut
from .rules import Builder, Pairs, Rule
from .sizes import sizes
from .weights import read

Feed = Mapping[str, NDArray[np.generic]]
Run = Callable[[ir.Model, Feed], Outputs]

#: How many nodes back a region reaches, when a shallower one did not settle it.
DEPTHS = (1, 3, 8, 24, 96)
#: Regions whose tensors exceed this many bytes are left to the check of the whole model.
HEAVY = 1 << 27
#: Sizes that dimensions get, in the order in which their names turn up.
_SIZES = (3, 2, 5, 4, 7, 6)
#: An epsilon shows where the numbers are small, an overflow where they are not.
_SCALES = (1.0, 1e-3)


@dataclass(frozen=True)
class Proof:
    """`error` of the region's outputs; None where they were not compared, for `reason`."""

    error: float | None
    allowed: float = 0.0
    reason: str = ""

    @property
    def refuted(self) -> bool:
        """Whether the rewrite gives other numbers than its contract allows, or none."""
        return self.error is not None and not self.error <= self.allowed


def reference(model: ir.Model, feed: Feed) -> Outputs:
    """Run a small model with ONNX's own reference."""
    session = evaluator(ir.to_proto(model))
    with np.errstate(all="ignore"):
        made = session.run(None, dict(feed))
    names = [value.name or "" for value in model.graph.outputs]
    return dict(zip(names, map(np.asarray, made), strict=True))


@dataclass
class Prover:
    """Proves applications; a region like one that was run before is not run again.

    `dims` gives dimensions their sizes, so that those bound to each other fit ("total" = "past"
    + "sequence"); a name it lacks gets a small number.
    """

    run: Run = reference
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    known: dict[Hashable, Proof] = field(default_factory=dict[Hashable, Proof])

    def __call__(self, rule: Rule, build: Builder, pairs: Pairs) -> Proof:
        """Compare values with those that would take their places."""
        old, new = [before for before, _ in pairs], [after for _, after in pairs]
        last = Proof(None, reason="its region could not be cut out")
        for depth in DEPTHS:
            region = cut([*old, *new], depth, build.opset, build.nodes)
            if region is None:
                return Proof(None, reason="a body or a custom operator is in its region")
            key = (rule.name, region.key)
            proof = self.known.get(key) or self._compare(region, rule.contract, len(old))
            self.known[key] = proof
            if region.whole or (proof.error is not None and not proof.refuted):
                return proof
            last = proof if proof.error is not None or last.error is None else last
        return last

    def _compare(self, region: Region, contract: Contract, count: int) -> Proof:
        worst = Proof(0.0)
        for scale in _SCALES[: 1 if contract.kind == "exact" else None]:
            try:
                feed = self._draw(region, scale)
            except Exception as problem:  # a shape that its names do not fit
                feed = f"its region cannot be fed: {problem}"
            if isinstance(feed, str):
                return Proof(None, reason=feed)
            try:
                made = list(self.run(region.model, feed).values())
            except Exception as problem:  # a runtime's errors share no narrower class
                if _lacks(problem) or not self._runs(region.model, count, feed):
                    return Proof(None, reason=f"its region cannot be run: {problem}")
                return Proof(inf, reason=f"what it makes cannot be run: {problem}")
            for before, after in zip(made[:count], made[count:], strict=True):
                found = Proof(error(before, after), contract.allowed(before.dtype))
                if found.refuted:
                    return found
                worst = max(worst, found, key=lambda proof: proof.error or 0.0)
        return worst

    def _runs(self, model: ir.Model, count: int, feed: Feed) -> bool:
        """Whether what makes the first `count` outputs runs alone."""
        alone = model.clone()
        del alone.graph.outputs[count:]
        common.RemoveUnusedNodesPass()(alone)
        try:
            self.run(alone, feed)
        except Exception:
            return False
        return True

    def _draw(self, region: Region, scale: float) -> dict[str, NDArray[np.generic]] | str:
        rng, feed, total = np.random.default_rng(0), dict[str, NDArray[np.generic]](), 0
        given = _Sizes(self.dims)
        for inner, value in zip(region.model.graph.inputs, region.inputs, strict=False):
            shape, dtype = sizes(value), value.dtype
            if shape is None or dtype is None or dtype == ir.DataType.STRING:
                return f"the type or shape of {value.name} is not known"
            numbers = tuple(size.at(given) for size in shape)
            if dtype in (ir.DataType.INT64, ir.DataType.INT32) and len(shape) <= 1:
                known = content(value)
                if known is None:
                    return f"what {value.name} holds is not known"
                array = np.array([size.at(given) for size in known], dtype.numpy())
                feed[inner.name or ""] = array if shape else array.reshape(())
                continue
            total += int(np.prod(numbers, dtype=np.float64)) * 8
            if total > HEAVY:
                return "its region is too large"
            feed[inner.name or ""] = _random(rng, numbers, dtype.numpy(), scale)
        if total + sum(tensor.nbytes for tensor in region.weights.values()) > HEAVY:
            return "its region is too large"
        return feed | {name: read(tensor) for name, tensor in region.weights.items()}


def _lacks(problem: Exception) -> bool:
    """Whether a runtime has no such operator: that says nothing about the graph."""
    return isinstance(problem, NotImplementedError) or type(problem).__name__ == "NotImplemented"


class _Sizes(dict[str, int]):
    """Sizes by name; a name that is new gets the next of a few small numbers."""

    def __missing__(self, name: str) -> int:
        self[name] = _SIZES[len(self) % len(_SIZES)]
        return self[name]


def _random(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    scale: float,
) -> NDArray[np.generic]:
    if dtype.kind in "biu":
        return rng.integers(0, 2, shape).astype(dtype)
    return (rng.standard_normal(shape) * scale).astype(dtype)
