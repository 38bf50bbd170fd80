"""onnxscript's own rules under our manager."""

from collections.abc import Sequence

import numpy as np
import pytest
from llmdeploy import PassError
from llmdeploy.passes import CLOSE, PassManager, RulePass
from llmdeploy.passes.patterns import from_onnxscript
from llmdeploy.passes.rules import Rule

pattern = pytest.importorskip("onnxscript.rewriter.pattern")

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
silu (float[b,4] x) => (float[b,4] y, float[b,4] z) {
    s = Sigmoid (x)
    a = Mul (x, s)
    y = Exp (a)
    t = Sigmoid (y)
    z = Mul (t, y)
}
"""


def gated(op, x):
    return op.Mul(x, op.Sigmoid(x))


def right(op, x):
    return op.Div(x, op.Add(op.Exp(op.Neg(x)), op.CastLike(op.Constant(value_float=1.0), x)))


def wrong(op, x):
    return op.Tanh(x)


def impossible(op, x):
    return op.Reshape(x, op.Constant(value_ints=[7, 9]))


class Own(RulePass):
    """A pass made of one pattern."""

    contract = CLOSE

    def __init__(self, replacement) -> None:
        made = pattern.RewriteRule(gated, replacement, name="gated")
        self.rule = from_onnxscript(made, "gated", "Mul", contract=CLOSE)

    def table(self) -> Sequence[Rule]:
        return (self.rule,)


def test_a_pattern_is_applied_and_proved(graph, execute, feeds):
    model, (step,) = PassManager([Own(right)]).run(graph(TEXT))
    assert (step.applications, step.proved) == ({"gated": 1}, 1)
    feed = feeds(graph(TEXT), {"b": 2}, 1)
    for name, array in execute(graph(TEXT), feed).items():
        np.testing.assert_allclose(execute(model, feed)[name], array, rtol=0, atol=1e-4)


def test_a_wrong_pattern_is_refuted(graph):
    with pytest.raises(PassError, match=r"pass own failed: error .* rule gated"):
        PassManager([Own(wrong)]).run(graph(TEXT))


def test_a_pattern_whose_result_cannot_be_run_is_refused(graph):
    told = []
    manager = PassManager([Own(impossible)], watch=lambda *step: told.append(step), explain=True)
    manager.run(graph(TEXT))
    ((step, _, ledger),) = told
    assert (step.modified, step.applications) == (False, {})
    assert ledger.reasons["gated", "a"].startswith("what it makes cannot be run")
