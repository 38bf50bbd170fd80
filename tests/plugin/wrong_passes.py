"""A third party's passes, each wrong in its own way, found through their entry points."""

from typing import ClassVar

import numpy as np
import onnx_ir as ir
from llmdeploy.passes import CLOSE, Contract, Pass, RulePass
from llmdeploy.passes.rules import rule
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

FROZEN = ConfigDict(extra="forbid")


@rule("LayerNormalization", contract=CLOSE)
def other_epsilon(build, node):
    """LayerNormalization(x, epsilon) = LayerNormalization(x, 1e-5), said of any epsilon."""
    if node.attributes["epsilon"].as_float() == np.float32(1e-5):
        return "it has that epsilon"
    return build.again(node, *node.inputs, epsilon=1e-5)


@rule("Transpose")
def square_is_symmetric(build, node):
    """Transpose(w) = w, said of every square weight."""
    weight = node.inputs[0]
    square = weight.is_initializer() and len(set(weight.shape)) == 1
    return weight if square else "it is not square"


@rule("Add")
def mask_is_zero(build, node):
    """softmax(scores + mask) = softmax(scores), said of any mask."""
    before_softmax = any(use.node.op_type == "Softmax" for use in node.outputs[0].uses())
    return node.inputs[0] if before_softmax else "no Softmax follows"


@dataclass(frozen=True, config=FROZEN)
class EpsilonOff(RulePass):
    """Sets every epsilon to its favourite."""

    contract: ClassVar[Contract] = CLOSE

    def table(self):
        return (other_epsilon,)


@dataclass(frozen=True, config=FROZEN)
class Untransposed(RulePass):
    """Saves transposes."""

    def table(self):
        return (square_is_symmetric,)


@dataclass(frozen=True, config=FROZEN)
class DroppedMask(RulePass):
    """Saves masks."""

    def table(self):
        return (mask_is_zero,)


@dataclass(frozen=True, config=FROZEN)
class Swapped(Pass):
    """Swaps the operands of the last Sub, by hand: no rule to blame."""

    def call(self, model):
        node = next(node for node in reversed(model.graph) if node.op_type == "Sub")
        one, two = node.inputs
        node.replace_input_with(0, two)
        node.replace_input_with(1, one)
        return ir.passes.PassResult(model, True)


@dataclass(frozen=True, config=FROZEN)
class Doubled(RulePass):
    """Two rules, of which one is right."""

    contract: ClassVar[Contract] = CLOSE

    def table(self):
        from llmdeploy.passes.gelu_rules import gelu

        return (gelu, other_epsilon)
