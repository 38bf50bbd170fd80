"""Where a pass went wrong: the one application of one rule, or the first value that differs."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .contract import Contract, Outputs, compare
from .infer import infer

Fails = Callable[[int], bool]
Verify = Callable[[ir.Model], Outputs]

#: Intermediate values that are looked at in one run.
_AT_ONCE = 64


def first_bad(fails: Fails, count: int) -> int:
    """The least k up to `count` for which the first k applications already fail, by bisection.

    `fails(count)` is known to hold, `fails(0)` not to.
    """
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if fails(middle) else (middle, bad)
    return bad


def first_difference(
    before: ir.Model, after: ir.Model, verify: Verify, contract: Contract
) -> tuple[str, str] | None:
    """(node, tensor) of the first value, in order, that both models have and that differs."""
    before, after = before.clone(), after.clone()
    infer(before)
    infer(after)
    names = {value.name for node in before.graph for value in node.outputs if value.type}
    common = [
        (node, value.name)
        for node in after.graph
        for value in node.outputs
        if value.name in names and value.type is not None
    ]
    for start in range(0, len(common), _AT_ONCE):
        group = common[start : start + _AT_ONCE]
        wanted = [name for _, name in group if name]
        found = compare_values(before, after, wanted, verify, contract)
        for node, name in group:
            if name in found:
                return node.name or node.op_type, name
    return None


def compare_values(
    before: ir.Model, after: ir.Model, names: list[str], verify: Verify, contract: Contract
) -> set[str]:
    """Which of the named values differ beyond the contract between the two models."""
    one, two = verify(exposed(before, names)), verify(exposed(after, names))
    found: set[str] = set()
    for key, array in one.items():
        name = key.partition("#")[0]
        if name in names and compare(contract, {key: array}, {key: _as(two[key], array)}).broken:
            found.add(name)
    return found


def _as(array: NDArray[np.generic], like: NDArray[np.generic]) -> NDArray[np.generic]:
    """A float in the other's float type: between passes a value may change from 32 bits to 16."""
    return (
        array.astype(like.dtype) if array.dtype.kind in "fV" and like.dtype.kind in "fV" else array
    )


def exposed(model: ir.Model, names: list[str]) -> ir.Model:
    """A copy of a model that also gives these values of its main graph."""
    copy = model.clone()
    given = {value.name for value in copy.graph.outputs}
    for node in copy.graph:
        for value in node.outputs:
            if value.name in names and value.name not in given:
                copy.graph.outputs.append(value)
    return copy
