"""The structure every pass must leave: valid ONNX, same inputs and outputs, nothing dangling."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from .. import PassError
from .skeleton import skeleton, unshaped


@dataclass(frozen=True)
class Facts:
    """What of a model must survive a pass."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    typed: frozenset[str]
    on_disk: frozenset[str] = frozenset()
    defaults: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: ir.Model) -> "Facts":
        """The facts of a model as it stands."""
        values = [value for node in model.graph for value in node.outputs]
        return cls(
            tuple(_signature(value) for value in model.graph.inputs),
            tuple(_signature(value) for value in model.graph.outputs),
            frozenset(value.name or "" for value in values if value.dtype and value.shape),
            frozenset(name for name, tensor in _weights(model) if isinstance(tensor, _ON_DISK)),
            frozenset(_signature(value) for value in model.graph.inputs if value.is_initializer()),
        )


_ON_DISK = ir.ExternalTensor
#: What ONNX Runtime registers in the standard domain though ONNX has no such operator.
_RUNTIMES_OWN = frozenset(["SimplifiedLayerNormalization"])


def _weights(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            yield name, value.const_value


def _signature(value: ir.Value) -> str:
    return f"{value.name}: {value.dtype}{value.shape}"


def check(model: ir.Model, before: Facts | None = None, *, where: str = "") -> None:
    """Check a model's structure, and, given the facts before a pass, that they survived it.

    Weights are not read.

    Raises:
        PassError: a value is used before it is made, a name is made twice, the ONNX checker
            refuses the graph, inputs or outputs changed, a known type or shape was lost, or a
            weight that lay on disk was read into memory.
    """
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        _check_values(graph, set(), where)
    try:
        onnx.checker.check_model(_standard(unshaped(skeleton(model))), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PassError(f"not valid ONNX: {_line(error)}", where=where) from error
    if before is not None:
        _check_facts(model, before, where)


def _standard(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same with ONNX Runtime's operators that pass for standard ones in a domain of theirs.

    A graph that it has optimised holds such, and the checker knows nothing of them.
    """
    for node in proto.graph.node:
        if node.op_type in _RUNTIMES_OWN and node.domain in ("", "ai.onnx"):
            node.domain = "onnxruntime"
    if any(node.domain == "onnxruntime" for node in proto.graph.node):
        proto.opset_import.append(onnx.helper.make_opsetid("onnxruntime", 1))
    return proto


def _check_values(graph: ir.Graph, outer: set[ir.Value], where: str) -> None:
    known = outer | set(graph.inputs) | set(graph.initializers.values())
    names = {value.name for value in known}
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in known:
                raise PassError(
                    f"node {node.name or node.op_type} reads {value.name!r}, which nothing"
                    " before it makes",
                    where=where,
                    mend="a cycle, a missing initializer, or nodes that are out of order",
                )
        for inner in subgraphs(node):
            _check_values(inner, known, where)
        for value in node.outputs:
            if value.name and value.name in names:
                raise PassError(f"two values are called {value.name!r}", where=where)
            names.add(value.name)
            known.add(value)
    for value in graph.outputs:
        if value not in known:
            raise PassError(f"nothing makes the output {value.name!r}", where=where)


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs in a node's attributes: bodies of If, Loop, Scan."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _check_facts(model: ir.Model, before: Facts, where: str) -> None:
    after = Facts.of(model)
    # nobody need give a new input that has a default
    added = after.defaults - set(before.inputs)
    asked = tuple(each for each in after.inputs if each not in added)
    for what, old, new in (
        ("inputs", before.inputs, asked),
        ("outputs", before.outputs, after.outputs),
    ):
        if len(old) != len(new) or not all(map(_stays, old, new)):
            changed = sorted(set(old) ^ set(new)) or list(new)
            raise PassError(f"the {what} changed: {'; '.join(changed)}", where=where)
    for name, tensor in _weights(model):
        if name in before.on_disk and isinstance(tensor, ir.Tensor):
            raise PassError(
                f"weight {name!r} was read into memory",
                where=where,
                mend="give it as an onnx_ir.LazyTensor, which is made when it is saved",
            )
    alive = {value.name for node in model.graph for value in node.outputs}
    lost = sorted((before.typed - after.typed) & alive)
    if lost:
        raise PassError(f"type or shape of {lost[0]!r} is no longer known", where=where)


def _stays(old: str, new: str) -> bool:
    """Whether an input or output is what it was; one whose rank nobody knew may have one now."""
    known = new.removeprefix(old.removesuffix("None"))
    return old == new or (old.endswith("None") and known.startswith("["))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
