"""Wrong passes of a third party: caught, located, rolled back."""

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import PassError
from llmdeploy.passes import PassManager

# One encoder layer: a mask, square weights that are transposed, a norm, a spelled-out Gelu.
TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
layer (float[b,s,4] x, int64[b,s] mask) => (float[b,s,4] y)
<float[4,4] wq = {0.1, 0.9, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8, -0.1, -0.2, -0.3, -0.4, 0.0, 0.1, 0.0, -0.1},
 float[4] scale = {1.0, 1.5, 1.0, 0.5}, float[4] shift = {0.0, 0.1, 0.0, 0.2},
 float low = {-10000.0}, float one = {1.0}, float half = {0.5}, float root = {1.4142135},
 int64[1] axis = {1}>
{
    wide = Unsqueeze (mask, axis)
    kept = Cast <to = 1> (wide)
    hidden = Sub (one, kept)
    bias = Mul (hidden, low)
    wt = Transpose <perm = [1, 0]> (wq)
    q = MatMul (x, wt)
    kt = Transpose <perm = [0, 2, 1]> (x)
    scores = MatMul (q, kt)
    masked = Add (scores, bias)
    p = Softmax <axis = -1> (masked)
    mixed = MatMul (p, x)
    residual = Sub (mixed, x)
    norm = LayerNormalization <axis = -1, epsilon = 0.000000000001> (residual, scale, shift)
    g1 = Div (norm, root)
    g2 = Erf (g1)
    g3 = Add (g2, one)
    g4 = Mul (norm, g3)
    y = Mul (g4, half)
}
"""
RULES = {
    "epsilon-off": ("other-epsilon", "norm"),
    "untransposed": ("square-is-symmetric", "wt"),
    "dropped-mask": ("mask-is-zero", "masked"),
    "doubled": ("other-epsilon", "norm"),
}


@pytest.fixture
def wrong(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "plugin"))
    return {
        point.name: point.load()()
        for point in entry_points(group="llmdeploy.passes")
        if point.dist.name == "wrong-passes"
    }


@pytest.fixture
def verify(execute):
    """Outputs at two scales: an epsilon shows in small numbers, a weight in larger ones."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    mask = np.array([[1, 1, 1], [1, 0, 0]])

    def outputs(model):
        feeds = [{"x": x * np.float32(scale), "mask": mask} for scale in (1, 1e-5)]
        return {
            f"{name}#{index}": array
            for index, feed in enumerate(feeds)
            for name, array in execute(model, feed).items()
        }

    return outputs


@pytest.mark.parametrize("name", RULES)
def test_the_region_refutes_it(wrong, graph, name):
    rule, tensor = RULES[name]
    with pytest.raises(PassError, match=f"pass {name} failed.*rule {rule}.*tensor {tensor}"):
        PassManager([wrong[name]]).run(graph(TEXT))


@pytest.mark.parametrize("name", RULES)
def test_bisection_finds_the_application(wrong, graph, verify, name):
    rule, tensor = RULES[name]
    manager = PassManager([wrong[name]], verify, prove=False)
    with pytest.raises(PassError, match=f"pass {name} failed.*rule {rule}.*tensor {tensor}"):
        manager.run(graph(TEXT))


@pytest.mark.parametrize("prove", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_one_application_is_taken_back_and_the_rest_kept(wrong, graph, verify, name, prove):
    manager = PassManager([wrong[name]], verify, prove=prove, on_failure="roll-back")
    model, (step,) = manager.run(graph(TEXT))
    ((rule, tensor),) = [(failure.rule, failure.tensor) for failure in step.failures]
    assert (rule, tensor) == RULES[name]
    assert step.applications == ({"gelu": 1} if name == "doubled" else {})
    before, after = verify(graph(TEXT)), verify(model)
    for key, array in before.items():
        np.testing.assert_allclose(after[key], array, rtol=0, atol=1e-6)


def test_without_rules_the_first_tensor_that_differs_is_named(wrong, graph, verify):
    with pytest.raises(PassError, match=r"pass swapped failed.*tensor residual"):
        PassManager([wrong["swapped"]], verify).run(graph(TEXT))


def test_without_rules_the_whole_pass_is_taken_back(wrong, graph, verify):
    manager = PassManager([wrong["swapped"]], verify, on_failure="roll-back")
    model, (step,) = manager.run(graph(TEXT))
    assert not step.modified
    assert step.failures[0].tensor == "residual"
    np.testing.assert_array_equal(verify(model)["y#0"], verify(graph(TEXT))["y#0"])
