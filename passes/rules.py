"""Rules: small rewrites of one place in a graph, each with a name and an equation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .contract import EXACT, Contract

Attribute = int | float | str | Sequence[int] | Sequence[float]


class Builder:
    """Records the nodes and constants that a rewrite puts in place of others."""

    def __init__(self, opset: int, *, in_function: bool = False) -> None:
        self.opset = opset
        self.in_function = in_function
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        #: The weight whose name a new one takes over when it is gone.
        self.stems: dict[ir.Value, str] = {}
        #: The node whose name and metadata a new one takes over.
        self.origin: dict[ir.Node, ir.Node] = {}

    def discard(self) -> None:
        """Let go of what the recorded nodes read: they are not going to be used."""
        for node in self.nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int = 1,
        like: ir.Value | None = None,
        origin: ir.Node | None = None,
        **attributes: Attribute,
    ) -> ir.Value:
        """A node of the standard domain; gives its first output, of `like`'s type and shape.

        It takes over the metadata of `origin`, and its names if that one goes away.
        """
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)
        self.nodes.append(node)
        if origin is not None:
            self.origin[node] = origin
        value = node.outputs[0]
        if like is not None:
            value.type, value.shape = like.type, like.shape
        return value

    def again(self, node: ir.Node, *inputs: ir.Value | None, **changed: Attribute) -> ir.Value:
        """The same operation on other inputs; gives its first output."""
        attributes = {
            **node.attributes,
            **{k: ir.convenience.convert_attribute(k, v) for k, v in changed.items()},
        }
        twin = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            tuple(attributes.values()),
            num_outputs=len(node.outputs),
            version=node.version,
        )
        self.nodes.append(twin)
        self.origin[twin] = node
        return twin.outputs[0]

    def constant(self, array: NDArray[np.generic], name: str = "") -> ir.Value:
        """A small constant."""
        return self.weight(ir.tensor(array), name)

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 constant: a shape, axes."""
        return self.constant(np.array(values, dtype=np.int64), "ints")

    def weight(self, tensor: ir.TensorProtocol, name: str = "") -> ir.Value:
        """A constant whose bytes may be made only when it is saved."""
        if self.in_function:  # functions have no initializers
            node = ir.node("Constant", [], {"value": ir.AttrTensor("value", tensor)})
            self.nodes.append(node)
            value = node.outputs[0]
            value.const_value = tensor
        else:
            value = ir.Value(name=name or None, const_value=tensor)
            self.initializers.append(value)
            self.stems[value] = name if tensor.size > 1 else ""
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(tensor.shape.numpy())
        return value


#: Values and what takes their places.
Pairs = Sequence[tuple[ir.Value, ir.Value]]
#: What a rule gives: the value that takes the place of its node's first output; or one for each
#: output; or, of values that later nodes make too, what takes the place of each; or in words why
#: it does not apply.
Outcome = ir.Value | Sequence[ir.Value] | Mapping[ir.Value, ir.Value] | str


def pairs_of(
    node: ir.Node, outcome: ir.Value | Sequence[ir.Value] | Mapping[ir.Value, ir.Value]
) -> Pairs:
    """The values that an outcome replaces, each with what takes its place."""
    if isinstance(outcome, ir.Value):
        return [(node.outputs[0], outcome)]
    if isinstance(outcome, Mapping):
        return list(outcome.items())
    return list(zip(node.outputs, outcome, strict=False))


@dataclass(frozen=True)
class Rule:
    """A named rewrite of nodes of these op types, of the standard domain."""

    name: str
    ops: frozenset[str]
    equation: str
    propose: Callable[[Builder, ir.Node], Outcome]
    contract: Contract = EXACT


def rule(
    *ops: str, contract: Contract = EXACT
) -> Callable[[Callable[[Builder, ir.Node], Outcome]], Rule]:
    """Make a function of (builder, node) a rule; its docstring is its equation."""

    def make(function: Callable[[Builder, ir.Node], Outcome]) -> Rule:
        name = function.__name__.strip("_").replace("_", "-")
        return Rule(name, frozenset(ops), (function.__doc__ or "").strip(), function, contract)

    return make
