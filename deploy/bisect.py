"""Where two graphs part: the first tensor that differs too much and never agrees again after it.

Both graphs are run as they are written with their inner tensors given out, and what has the same
name in both is compared. An exact rewrite may leave a tensor scaled or shifted under its old name;
what is made of it agrees again, so that only a difference that lasts is one.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .. import BuildError, ParityError
from .ort_session import Settings, open_session

Feed = Mapping[str, NDArray[Any]]
#: Tensors given out by one run: more would hold too much memory at a time.
AT_ONCE = 48
#: What does not carry values on: an agreement behind it says nothing.
SHAPES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Divergence:
    """The first lasting difference: its tensor, the node that makes it, and the nodes behind it.

    `error` is relative to the tensor's largest magnitude in the reference. `region` are the
    candidate's nodes from the nearest tensors that agree (`agreed`) to this one.
    """

    tensor: str
    node: str
    error: float
    agreed: tuple[str, ...]
    region: tuple[str, ...]
    compared: int
    differing: int


def diverge(reference: Path, candidate: Path, feed: Feed, limit: float) -> Divergence | None:
    """The first tensor of `candidate` whose relative error is above `limit` for good.

    None where every difference heals.

    Raises:
        ParityError: the graphs share no tensor.
        BuildError: a file cannot be loaded or run.
    """
    before, after = ir.load(reference), ir.load(candidate)
    known = set(_names(before))
    shared = [name for name in _names(after) if name in known]
    if not shared:
        raise ParityError("the graphs share no tensor", where=candidate)
    errors: dict[str, float] = {}
    for names in chunks(shared, AT_ONCE):
        one = values(before, reference.parent, names, feed)
        two = values(after, candidate.parent, names, feed)
        errors |= {name: relative_error(one[name], two[name]) for name in names}
    return _first(after.graph, errors, limit)


def relative_error(before: NDArray[Any], after: NDArray[Any]) -> float:
    """max|after - before| / max|before|, infinite where shapes differ or only one is finite."""
    if before.shape != after.shape:
        return float("inf")
    one, two = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(two)):
        return float("inf")
    one, two = one[finite], two[finite]
    scale = float(np.abs(one).max(initial=0.0)) or 1.0
    return float(np.abs(two - one).max(initial=0.0)) / scale


def _first(graph: ir.Graph, errors: Mapping[str, float], limit: float) -> Divergence | None:
    agrees = {name: error <= limit for name, error in errors.items()}
    healed = _healed(graph, agrees)
    for node in graph:
        for value in node.outputs:
            name = value.name or ""
            if agrees.get(name) is False and id(value) not in healed:
                agreed, region = _behind(value, agrees)
                return Divergence(
                    tensor=name,
                    node=name_of(node),
                    error=errors[name],
                    agreed=agreed,
                    region=region,
                    compared=len(errors),
                    differing=sum(not each for each in agrees.values()),
                )
    return None


def _healed(graph: ir.Graph, agrees: Mapping[str, bool]) -> set[int]:
    """Values of which something that agrees is made at once, or through healed values alone.

    One path that agrees further on does not do: a softmax over small scores hides any difference.
    """
    healed: set[int] = set()
    for node in reversed(graph):
        healed |= {id(value) for value in node.outputs if _heals(value, agrees, healed)}
    return healed


def _heals(value: ir.Value, agrees: Mapping[str, bool], healed: set[int]) -> bool:
    nodes = [use.node for use in value.uses() if use.node.op_type not in SHAPES]
    if any(agrees.get(made.name or "") for node in nodes for made in node.outputs):
        return True
    through = all(id(made) in healed for node in nodes for made in node.outputs)
    return bool(nodes) and through and not value.is_graph_output()


def _behind(value: ir.Value, agrees: Mapping[str, bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nearest tensors that agree before a value, and the nodes in between, last first."""
    agreed, region = dict[str, None](), dict[str, None]()
    waiting = [value]
    while waiting:
        node = waiting.pop().producer()
        if node is None or name_of(node) in region:
            continue
        region[name_of(node)] = None
        for each in node.inputs:
            if each is not None and agrees.get(each.name or ""):
                agreed[each.name or ""] = None
            elif each is not None:
                waiting.append(each)
    return tuple(agreed), tuple(region)


def _names(model: ir.Model) -> list[str]:
    """Floating tensors of the main graph, in the order they are made."""
    floating = (ir.DataType.FLOAT, ir.DataType.FLOAT16, None)
    values = (value for node in model.graph for value in node.outputs)
    return [value.name for value in values if value.name and value.dtype in floating]


def values(
    model: ir.Model, weights: Path, names: Sequence[str], feed: Feed
) -> dict[str, NDArray[Any]]:
    """Inner tensors of a graph, run as it is written; its weights stay in their folder.

    Raises:
        BuildError: it cannot be loaded or run.
    """
    copy = model.clone()
    made = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs[:] = [made[name] for name in names]
    with tempfile.NamedTemporaryFile(prefix="llmdeploy-", suffix=".onnx") as file:
        ir.save(copy, file.name)
        session = open_session(Path(file.name), Settings(optimized=True), weights=weights)
        inputs = {each.name for each in session.get_inputs()}
        try:
            given = {name: array for name, array in feed.items() if name in inputs}
            arrays: list[Any] = session.run(list(names), given)
        except Exception as error:  # ONNX Runtime's own errors share no narrower class
            what = f"cannot be executed: {' '.join(str(error).split())[:200]}"
            raise BuildError(what, where=weights) from error
    return dict(zip(names, arrays, strict=True))


def chunks(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The names in parts of at most `size`."""
    return (names[start : start + size] for start in range(0, len(names), size))


def name_of(node: ir.Node) -> str:
    """A node by its operator and its name, or by what it makes."""
    return f"{node.op_type} {node.name or node.outputs[0].name}"
