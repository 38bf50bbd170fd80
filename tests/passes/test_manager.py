from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import Contract, Pass, PassManager
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.fold import Fold
from llmdeploy.passes.fuse import Fuse
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
two (float[b,4] x) => (float[b,4] y) <float two = {2.0}>
{
    a = Identity (x)
    c = Mul (a, two)
    y = Exp (c)
}
"""
FROZEN = ConfigDict(extra="forbid")


@pytest.fixture
def verify(execute, feeds):
    def outputs(model):
        return execute(model, feeds(model, {"b": 3}, 2))

    return outputs


@dataclass(frozen=True, config=FROZEN)
class Shift(Pass):
    """Adds to the constant: wrong by as much as it is told."""

    by: float = 0.0
    contract: ClassVar[Contract] = Contract("close", {"float32": 1e-5})

    def call(self, model):
        value = model.graph.initializers["two"]
        value.const_value = ir.tensor(np.array(2.0 + self.by, np.float32), name="two")
        return ir.passes.PassResult(model, True)


@dataclass(frozen=True, config=FROZEN)
class Tangle(Pass):
    """Makes a cycle."""

    def call(self, model):
        nodes = list(model.graph)
        nodes[0].replace_input_with(0, nodes[-1].outputs[0])
        return ir.passes.PassResult(model, True)


@dataclass(frozen=True, config=FROZEN)
class Stumble(Pass):
    """Fails."""

    def call(self, model):
        raise ValueError("no\nsuch thing")


def test_steps_say_what_was_done(graph, verify):
    model, steps = PassManager([Clean(), Fold(), Clean()], verify).run(graph(TEXT))
    clean, fold, again = steps
    assert [step.name for step in steps] == ["clean", "fold", "clean"]
    assert (clean.nodes_before, clean.nodes_after) == (3, 2)
    assert clean.applications == {"identity": 1}
    assert (clean.modified, clean.max_error) == (True, 0.0)
    assert (fold.modified, fold.max_error, again.modified) == (False, None, False)
    assert [node.op_type for node in model.graph] == ["Mul", "Exp"]


def test_without_a_runner_no_error_is_claimed(graph):
    _, (step,) = PassManager([Clean()]).run(graph(TEXT))
    assert step.modified
    assert step.max_error is None


def test_a_broken_contract_names_pass_output_and_error(graph, verify):
    with pytest.raises(PassError, match=r"pass shift failed: error .* node Mul, tensor c"):
        PassManager([Shift(by=0.01)], verify).run(graph(TEXT))


def test_a_kept_contract_reports_its_error(graph, verify):
    _, (step,) = PassManager([Shift(by=1e-6)], verify).run(graph(TEXT))
    assert 0 < step.max_error < 1e-5


def test_a_broken_structure_names_the_pass(graph, verify):
    with pytest.raises(PassError, match="pass tangle"):
        PassManager([Clean(), Tangle()], verify).run(graph(TEXT))


def test_a_failing_pass_is_one_chained_line(graph):
    with pytest.raises(
        PassError, match=r"pass stumble failed: ValueError: no such thing"
    ) as caught:
        PassManager([Stumble()]).run(graph(TEXT))
    assert isinstance(caught.value.__cause__, ValueError)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_valid_is_refused_before_the_first_pass(graph):
    with pytest.raises(PassError, match="before the first pass"):
        PassManager([Clean()]).run(graph(TEXT.replace("Exp", "Not")))


def test_options_are_checked():
    with pytest.raises(ValidationError):
        Fuse(rules=("no-such-rule",))
    with pytest.raises(ValidationError):
        Clean(merge=True)
    with pytest.raises(ValidationError):
        Fold(read=0)


def test_passes_come_by_entry_point():
    from importlib.metadata import entry_points

    found = {point.name: point.load() for point in entry_points(group="llmdeploy.passes")}
    assert (found["clean"], found["fold"], found["fuse"]) == (Clean, Fold, Fuse)


def test_the_watcher_sees_each_model_and_why_rules_did_not_apply(graph):
    seen = []
    manager = PassManager([Clean(), Fold()], watch=lambda *told: seen.append(told), explain=True)
    manager.run(graph(TEXT))
    (clean, _, ledger), (fold, model, _) = seen
    assert (clean.name, fold.name) == ("clean", "fold")
    assert ledger.reasons["neutral", "c"] == "neither operand is neutral"
    assert [node.op_type for node in model.graph] == ["Mul", "Exp"]


def test_every_application_is_on_record_with_its_proof(graph):
    ledgers = []
    PassManager([Clean()], watch=lambda *told: ledgers.append(told[2])).run(graph(TEXT))
    (made,) = ledgers[0].applications
    assert (made.rule, made.site, made.before, made.after) == ("identity", "a", ("Identity",), ())
    assert made.error == 0.0


HALVES = """
<ir_version: 10, opset_import: ["" : 20]>
halves (float16[b,64] x, float16[64,64] w) => (float16[b,64] y) <int64[2] shape = {-1, 64}>
{
    p = MatMul (x, w)
    q = Identity (p)
    r = Reshape (q, shape)
    y = MatMul (r, w)
}
"""


def test_a_runtime_that_rounds_16_bits_elsewhere_is_no_failure_of_an_exact_pass(execute):
    model = ir.from_onnx_text(HALVES)
    random = np.random.default_rng(0)
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(random.normal(size=(64, 64)).astype(np.float16), name="w")
    model.graph.register_initializer(value)
    feed = {"x": random.normal(size=(3, 64)).astype(np.float16)}
    model, steps = PassManager([Clean()], lambda each: execute(each, feed)).run(model)
    assert "Identity" not in [node.op_type for node in model.graph]
    assert 0 < steps[0].max_error < 2e-3
