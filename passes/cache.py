"""The pass `quantize-cache`: keys and values of earlier tokens kept as int8 levels.

new / s -> QuantizeLinear(1) -> Concat with past (int8) -> present (int8) -> DequantizeLinear(1) ->
attention. The steps s [heads, width] are constants: (q s) l^T = q (s l)^T and (p l) s = p (l s), so
that levels l are multiplied by none of them; where attention is not seen to allow that they are.
Q and DQ have one scale, 1, and a zero point, 0: what every engine takes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass as record
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .cache_places import Factor, Joined, joined, reader
from .contract import Contract
from .kinds import Pass
from .linear import array_of

Steps = NDArray[np.float32]
_FLOATS = (None, ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@record(frozen=True)
class Kept:
    """An input that is kept as int8: the output that it grows to, and steps [heads, width]."""

    present: str
    steps: Steps


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class QuantizeCache(Pass):
    """Makes int8 of the named inputs of keys and values and of their outputs, each a `Kept`."""

    tensors: Mapping[str, Any]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite each named cache.

        Raises:
            PassError: no cache of that name grows by the new tokens, or a step is not positive.
        """
        for past, kept in self.tensors.items():
            found = joined(model.graph, past, kept.present)
            if isinstance(found, str):
                raise PassError(f"cache {past}: {found}", mend="calibrate again")
            if not (kept.steps > 0).all():
                raise PassError(f"a step of {past} is not positive", mend="calibrate again")
            _narrow(model.graph, found, kept.steps)
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=bool(self.tensors))


def refused(graph: ir.Graph, past: str, present: str) -> str:
    """Why an input that grows to an output cannot be kept as int8, empty where it can."""
    found = joined(graph, past, present)
    if isinstance(found, str):
        return found
    return "" if found.new.dtype in _FLOATS else f"its new tokens are {found.new.dtype}"


def held(graph: ir.Graph, past: str, present: str, steps: Steps) -> Steps:
    """Steps as the graph's dtype holds them and what 1 is divided by them: float16 ends soon."""
    found = joined(graph, past, present)
    dtype = found.new.dtype if isinstance(found, Joined) else None
    kind = (dtype or ir.DataType.FLOAT).numpy()
    last = np.array(1 / float(ml_dtypes.finfo(kind).max)).astype(kind)
    least = np.nextafter(last, np.ones_like(last))  # `last` may have been rounded down
    return np.maximum(steps.astype(kind), least).astype(np.float32)


def _narrow(graph: ir.Graph, cache: Joined, steps: Steps) -> None:
    """int8 from the new tokens on to what attention reads."""
    concat, made, name = cache.concat, cache.concat.outputs[0], cache.past.name or "past"
    kind = (cache.new.dtype or ir.DataType.FLOAT).numpy()
    one = array_of(graph, np.ones((), kind), f"{name}.scale")
    zero = array_of(graph, np.zeros((), np.int8), f"{name}.zero_point")
    divide = _times(graph, cache.new, np.reciprocal(steps), f"{name}.divided")
    there = ir.node("QuantizeLinear", [divide.outputs[0], one, zero], name=f"{name}.quantize")
    _called(there, f"{name}.new", cache.new, ir.DataType.INT8)
    graph.insert_before(concat, [divide, there])
    back = ir.node("DequantizeLinear", [made, one, zero], name=f"{name}.dequantize")
    levels = _called(back, f"{name}.dequantized", made, cache.new.dtype)
    cast = cache.present.producer()
    _instead(made, levels, [back] if _is_read(cache.present) else [back, cast])
    graph.insert_after(concat, back)
    concat.replace_input_with(0, cache.past)
    concat.replace_input_with(1, there.outputs[0])
    for value in (cache.past, made):
        value.type = ir.TensorType(ir.DataType.INT8)
    _leave(graph, cache.present, made)
    _step(graph, back, steps, name)


def _step(graph: ir.Graph, back: ir.Node, steps: Steps, name: str) -> None:
    """Multiply by the steps: what is of the new tokens alone, where attention is followed."""
    levels, factor = back.outputs[0], reader(back.outputs[0])
    if factor is not None and factor.place is not None:
        query = factor.node.inputs[factor.place]
        assert query is not None
        product = _times(graph, query, _repeated(steps, factor), f"{name}.query")
        graph.insert_before(factor.node, product)
        factor.node.replace_input_with(factor.place, product.outputs[0])
        return
    last = back if factor is None else factor.node
    value = levels if factor is None else last.outputs[0]
    array = steps if factor is None else _repeated(steps, factor)
    product = _times(graph, value, array, f"{name}.stepped")
    _instead(value, product.outputs[0], [product])
    graph.insert_after(last, product)


def _repeated(steps: Steps, factor: Factor) -> Steps:
    return np.repeat(steps, factor.repeat, axis=0)


def _times(graph: ir.Graph, value: ir.Value, factors: Steps, name: str) -> ir.Node:
    """`value` [b, heads, t, width] by a factor a channel; a node that is not in the graph yet."""
    kind = (value.dtype or ir.DataType.FLOAT).numpy()
    factor = array_of(graph, factors[None, :, None, :].astype(kind), f"{name}.factors")
    node = ir.node("Mul", [value, factor], name=f"{name}.multiply")
    _called(node, name, value, value.dtype)
    return node


def _is_read(value: ir.Value) -> bool:
    """Whether nodes read the numbers of a value, not its shape alone."""
    return any(use.node.op_type != "Shape" for use in value.uses())


def _called(node: ir.Node, name: str, like: ir.Value, kind: ir.DataType | None) -> ir.Value:
    made = node.outputs[0]
    made.name, made.shape = name, like.shape
    made.type = ir.TensorType(kind or ir.DataType.FLOAT)
    return made


def _instead(old: ir.Value, new: ir.Value, but: Collection[ir.Node | None]) -> None:
    """Let all read `new` that read `old`, those in `but` excepted, and those that ask its shape."""
    for node, place in list(old.uses()):
        if node not in but and node.op_type != "Shape":
            node.replace_input_with(place, new)


def _leave(graph: ir.Graph, present: ir.Value, made: ir.Value) -> None:
    """Make what is joined the output, in the place of a Cast of it."""
    if made is present:
        return
    name, index = present.name, list(graph.outputs).index(present)
    present.name, made.name = f"{name}.wide", name
    graph.outputs[index] = made
