"""A pass that records no rules is held to its promise place by place."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.deploy.backend import CLOSE, Promise
from llmdeploy.passes import Contract, Pass, PassManager
from llmdeploy.passes.beside import beside, rounds
from llmdeploy.passes.trial import contract_of

#: Two products whose inputs are quantised: an error in the last place can become a whole step.
ROUNDING = """<ir_version: 10, opset_import: ["" : 21]>
g (float[b,4] x) => (float[b,4] y)
<float third = {0.3333}, float[1] step = {0.001}, int8[1] zero = {0}, float[4,4] w =
 {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6}>
{
    a = Mul (x, third)
    q = QuantizeLinear <axis = 0> (a, step, zero)
    d = DequantizeLinear <axis = 0> (q, step, zero)
    h = MatMul (d, w)
    c = Mul (h, third)
    p = QuantizeLinear <axis = 0> (c, step, zero)
    e = DequantizeLinear <axis = 0> (p, step, zero)
    y = MatMul (e, w)
}"""
PLAIN = """<ir_version: 10, opset_import: ["" : 21]>
g (float[b,4] x) => (float[b,4] y) <float third = {0.3333}, float[4] bias = {1.0, 2.0, 3.0, 4.0}>
{
    a = Mul (x, third)
    s = Softmax (a)
    h = Mul (s, third)
    y = Add (h, bias)
}"""


@dataclass(frozen=True)
class Rewrite(ir.passes.InPlacePass):
    """As a third party writes one: an onnx_ir pass with a promise of its own kind."""

    change: object
    contract: Promise = CLOSE

    def call(self, model):
        self.change(model)
        return ir.passes.PassResult(model, True)


def divided(by=1.0):
    """Every product with `third` becomes a quotient: the same but for the last place."""

    def change(model):
        inverse = ir.tensor(np.array(by / np.float32(0.3333), np.float32), name="inverse")
        value = ir.Value(name="inverse", const_value=inverse, type=ir.TensorType(inverse.dtype))
        value.shape = ir.Shape([])
        model.graph.register_initializer(value)
        for node in [node for node in model.graph if node.op_type == "Mul"]:
            made = ir.node("Div", [node.inputs[0], value])
            name, out = node.outputs[0].name, node.outputs[0]
            made.outputs[0].type, made.outputs[0].shape = out.type, out.shape
            model.graph.insert_before(node, made)
            out.replace_all_uses_with(made.outputs[0])
            model.graph.remove(node, safe=True)
            made.outputs[0].name = name

    return change


def later(model):
    """The factor before the Softmax's Add joins what follows: `h` then holds something else."""
    graph = model.graph
    product = next(node for node in graph if node.outputs[0].name == "h")
    total = next(node for node in graph if node.outputs[0].name == "y")
    twice = ir.node("Mul", [product.outputs[0], graph.initializers["third"]])
    twice.outputs[0].name = "later"
    half = ir.node("Identity", [product.inputs[0]])
    out = half.outputs[0]
    out.type, out.shape = product.outputs[0].type, product.outputs[0].shape
    graph.insert_before(product, half)
    graph.insert_before(total, twice)
    product.outputs[0].replace_all_uses_with(out)
    total.replace_input_with(0, twice.outputs[0])
    graph.remove(product, safe=True)
    out.name = "h"


def weight(by):
    """Another weight under an old name."""

    def change(model):
        value = model.graph.initializers["bias"]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(by), name="bias")

    return change


@pytest.fixture
def verify(execute, feeds):
    def outputs(model):
        return execute(model, feeds(model, {"b": 64}, 2))

    return outputs


def test_rounding_that_grows_is_not_the_passes_fault(graph, execute):
    def verify(model):  # everything lies on the border of two steps
        steps = np.arange(-50, 50) + 0.5
        return execute(model, {"x": (steps * 0.001 / 0.3333).astype(np.float32).reshape(-1, 4)})

    model = graph(ROUNDING)
    assert rounds(model)
    wide = Rewrite(divided(), Promise("close", CLOSE.tolerance, by_place=False))
    with pytest.raises(PassError, match=r"where 0\.0001 is allowed"):
        PassManager([wide], verify).run(graph(ROUNDING))
    _, (step,) = PassManager([Rewrite(divided())], verify).run(model)
    assert step.proved >= 2
    assert step.max_error is None
    assert step.local_error < 1e-2


@pytest.mark.parametrize("text", [ROUNDING, PLAIN])
def test_what_is_off_is_found_where_it_is_made(graph, verify, text):
    with pytest.raises(PassError, match=r"node .*, tensor a") as caught:
        PassManager([Rewrite(divided(1.05))], verify).run(graph(text))
    assert "rewrite" in str(caught.value)


def test_what_is_off_can_be_taken_back(graph, verify):
    manager = PassManager([Rewrite(divided(1.05))], verify, on_failure="roll-back")
    model, (step,) = manager.run(graph(PLAIN))
    assert [failure.tensor for failure in step.failures] == ["a"]
    assert "Div" not in {node.op_type for node in model.graph}


def test_a_value_may_get_another_meaning_if_those_after_it_agree(graph, verify):
    model, (step,) = PassManager([Rewrite(later)], verify).run(graph(PLAIN))
    assert step.proved == 1
    assert step.local_error < 2e-5
    assert "later" in {node.outputs[0].name for node in model.graph}


@pytest.mark.parametrize(("by", "fails"), [(1.0, False), (1.001, True)])
def test_another_weight_under_an_old_name_is_seen(graph, verify, by, fails):
    manager = PassManager([Rewrite(weight(by))], verify)
    if fails:
        with pytest.raises(PassError, match="tensor y"):
            manager.run(graph(PLAIN))
        return
    _, (step,) = manager.run(graph(PLAIN))
    assert (step.proved, step.local_error) == (1, 0.0)


def test_a_pass_that_changes_nothing_costs_no_run(graph):
    class Idle(ir.passes.InPlacePass):
        def call(self, model):
            return ir.passes.PassResult(model, False)

    def verify(model):
        raise AssertionError("it was run")

    _, (step,) = PassManager([Idle()], verify).run(graph(PLAIN))
    assert not step.modified


def test_bodies_and_custom_operators_are_left_to_the_outputs(graph):
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = a () => (float[2] t) { t = Abs (x) },
                    else_branch = b () => (float[2] e) { e = Neg (x) }>
    }"""
    before, after = graph(text), graph(text)
    choice = after.graph.node(0)
    other = ir.node("Not", [choice.inputs[0]])
    other.outputs[0].name = "other"
    after.graph.insert_before(choice, other)
    choice.replace_input_with(0, other.outputs[0])
    assert beside(before, after)[1] == {}


def test_a_promise_of_another_room_counts():
    assert contract_of(Rewrite(later)) == Contract("close", CLOSE.tolerance, by_place=True)
    assert contract_of(Rewrite(later, "nonsense")).kind == "exact"
    assert contract_of(Rewrite(later, Promise("soon"))).kind == "exact"
    assert not Pass.contract.by_place
