import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.deploy.ort_int8 import IntegerMatMul
from llmdeploy.deploy.ort_norm import ShareNorm

from .graphs import evaluate, normal, ops, parse, quantized

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
FIRST = """ns = LayerNormalization(x, gs, bs)
        n = LayerNormalization(x, g, b)"""
LAST = """n = LayerNormalization(x, g, b)
        ns = LayerNormalization(x, gs, bs)"""


def smoothed(norms: str, bias: str = "p = Add(m, c)") -> ir.Model:
    """A norm for an integer MatMul, and the same unsmoothed for the residual."""
    weight, scale = quantized(normal(16, 16), axis=1)
    text = f"""{HEAD}g (float[N,16] x, int8[16,16] w, float[16] ws, float[16] g, float[16] b, float[16] gs,
      float[16] bs, float[16] c) => (float[N,16] y)
      <float s = {{0.03}}, int8 z = {{0}}> {{
        {norms}
        q = QuantizeLinear(ns, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        m = MatMul(d, wd)
        {bias}
        y = Add(p, n)
      }}"""
    vectors = {
        name: 1 + 0.3 * normal(16, seed=i) for i, name in enumerate(("g", "b", "gs", "bs", "c"), 5)
    }
    return parse(text, {"w": weight, "ws": scale, **vectors})


@pytest.mark.parametrize("norms", [FIRST, LAST])
def test_two_norms_of_one_tensor_become_one(norms: str) -> None:
    model = smoothed(norms)
    IntegerMatMul()(model)
    x = {"x": normal(7, 16)}
    before = evaluate(model, x)
    assert ShareNorm()(model).modified
    assert sorted(ops(model)) == [
        "Add",
        "LayerNormalization",
        "MatMulIntegerToFloat",
        "Mul",
        "QuantizeLinear",
    ]
    # Divided and multiplied again: two roundings of values up to 20.
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], rtol=1e-6, atol=1e-5)
    assert not ShareNorm()(model).modified


@pytest.mark.parametrize("norms", [FIRST, LAST])
def test_norms_that_differ_by_a_shift_become_one_without_a_product(norms: str) -> None:
    model = smoothed(norms)
    weights = model.graph.initializers
    weights["gs"].const_value = ir.tensor(weights["g"].const_value.numpy(), name="gs")
    IntegerMatMul()(model)
    x = {"x": normal(7, 16)}
    before = evaluate(model, x)
    assert ShareNorm()(model).modified
    assert sorted(ops(model)) == [
        "Add",
        "LayerNormalization",
        "MatMulIntegerToFloat",
        "QuantizeLinear",
    ]
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], rtol=1e-6, atol=1e-5)


def test_without_a_bias_to_take_the_offset_both_stay() -> None:
    model = smoothed(FIRST, bias="p = Relu(m)")
    IntegerMatMul()(model)
    assert not ShareNorm()(model).modified


@pytest.mark.parametrize("norms", [FIRST, LAST])
def test_norms_whose_scales_are_0_stay(norms: str) -> None:
    model = smoothed(norms)
    for name in ("g", "gs"):
        model.graph.initializers[name].const_value = ir.tensor(np.zeros(16, np.float32), name=name)
    IntegerMatMul()(model)
    x = {"x": normal(7, 16)}
    before = evaluate(model, x)
    assert not ShareNorm()(model).modified
    assert np.array_equal(evaluate(model, x)[0], before[0])


def test_norms_of_other_settings_stay() -> None:
    model = smoothed(
        FIRST.replace("LayerNormalization(x, g, b)", "LayerNormalization<epsilon = 0.1>(x, g, b)")
    )
    IntegerMatMul()(model)
    assert not ShareNorm()(model).modified


def test_a_bias_that_is_computed_is_not_taken_for_zero() -> None:
    model = smoothed("t = Add(bs, bs)\n" + LAST.replace("(x, gs, bs)", "(x, gs, t)"))
    IntegerMatMul()(model)
    x = {"x": normal(7, 16)}
    before = evaluate(model, x)
    assert not ShareNorm()(model).modified
    np.testing.assert_array_equal(evaluate(model, x)[0], before[0])


def test_a_sum_that_stood_before_the_norm_that_stays_comes_after_it() -> None:
    norms = "ns = Identity(x)\n o = LayerNormalization(x, g, b)"
    bias = "p0 = Add(m, c)\n p1 = Add(p0, o)\n p = Relu(p1)\n n = LayerNormalization(x, gs, bs)"
    model = smoothed(norms, bias)
    IntegerMatMul()(model)
    x = {"x": normal(7, 16)}
    before = evaluate(model, x)
    assert ShareNorm()(model).modified
    onnx.checker.check_model(ir.to_proto(model))
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], rtol=1e-6, atol=1e-5)
