import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.deploy.ort_int8 import IntegerMatMul
from llmdeploy.deploy.ort_norm import ShareNorm
from llmdeploy.deploy.ort_outliers import PickSooner

from .graphs import evaluate, normal, ops, parse, quantized

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
# A bias and rows are multiplied out in advance: two more roundings of sums of values up to 40.
TOLERANCE = {"rtol": 1e-6, "atol": 4e-5}


def outliers(*, bias: str = "p = Add(m, c)", moved: str = "x2 = Add(x1, a)") -> ir.Model:
    """x scaled and moved for INT8, two of its columns in float beside the integer product."""
    weight, scale = quantized(normal(16, 16), axis=1)
    text = f"""{HEAD}g (float[N,T,16] x, int8[16,16] w, float[16] ws, float[16] c, float[16] s, float[2,16] r,
      int64[2] o) => (float[N,T,16] y)
      <float step = {{0.03}}, int8 z = {{0}}, float a = {{-0.45}}> {{
        x1 = Mul(x, s)
        {moved}
        picked = Gather<axis = -1>(x2, o)
        part = MatMul(picked, r)
        q = QuantizeLinear(x2, step, z)
        d = DequantizeLinear(q, step, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        m = MatMul(d, wd)
        {bias}
        y = Add(p, part)
      }}"""
    arrays = {
        "c": normal(16, seed=3),
        "s": 1 + 0.2 * normal(16, seed=4),
        "r": normal(2, 16, seed=5),
        "o": np.array([3, 11], np.int64),
    }
    model = parse(text, {"w": weight, "ws": scale, **arrays})
    shape = ir.Shape(["N", "T", 16])
    for node in model.graph:
        for value in node.outputs:
            value.shape = ir.Shape(["N", "T", 2]) if value.name == "picked" else shape
    return model


def test_columns_are_picked_before_what_scales_and_moves_them() -> None:
    model = outliers()
    x = {"x": normal(2, 5, 16)}
    before = evaluate(model, x)[0]
    assert PickSooner()(model).modified
    pick = next(node for node in model.graph if node.op_type == "Gather")
    assert pick.inputs[0] is model.graph.inputs[0]
    np.testing.assert_allclose(evaluate(model, x)[0], before, **TOLERANCE)
    IntegerMatMul()(model)
    # The Add went into the zero point: fifteen whole steps.
    assert sorted(ops(model)) == [
        "Add",
        "Gather",
        "MatMul",
        "MatMulIntegerToFloat",
        "Mul",
        "QuantizeLinear",
    ]
    np.testing.assert_allclose(evaluate(model, x)[0], before, **TOLERANCE)
    assert not PickSooner()(model).modified


def test_without_a_bias_only_the_scale_is_passed() -> None:
    model = outliers(bias="p = Relu(m)")
    before = evaluate(model, {"x": normal(2, 5, 16)})[0]
    assert not PickSooner()(model).modified
    model = outliers(bias="p = Relu(m)", moved="x2 = Mul(x1, a)")
    before = evaluate(model, {"x": normal(2, 5, 16)})[0]
    assert PickSooner()(model).modified
    after = evaluate(model, {"x": normal(2, 5, 16)})[0]
    np.testing.assert_allclose(after, before, **TOLERANCE)


@pytest.mark.parametrize("change", ["axis", "rows"])
def test_what_picks_no_columns_of_a_constant_product_stays(change: str) -> None:
    model = outliers()
    pick = next(node for node in model.graph if node.op_type == "Gather")
    if change == "axis":
        pick.attributes["axis"] = ir.AttrInt64("axis", 1)
    else:
        reader = next(iter(pick.outputs[0].uses())).node
        reader.replace_input_with(1, model.graph.inputs[0])
    assert not PickSooner()(model).modified


def test_norms_are_shared_past_the_columns_in_float() -> None:
    weight, scale = quantized(normal(16, 16), axis=1)
    text = f"""{HEAD}g (float[N,16] x, int8[16,16] w, float[16] ws, float[16] g, float[16] b, float[16] gs,
      float[16] bs, float[16] c, float[N,16] part) => (float[N,16] y)
      <float s = {{0.03}}, int8 z = {{0}}> {{
        n = LayerNormalization(x, g, b)
        ns = LayerNormalization(x, gs, bs)
        q = QuantizeLinear(ns, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        m = MatMul(d, wd)
        p = Add(m, c)
        whole = Add(p, part)
        y = Add(whole, n)
      }}"""
    names = ("g", "b", "gs", "bs", "c")
    vectors = {name: 1 + 0.3 * normal(16, seed=i) for i, name in enumerate(names, 5)}
    model = parse(text, {"w": weight, "ws": scale, **vectors})
    IntegerMatMul()(model)
    x = {"x": normal(7, 16), "part": normal(7, 16, seed=2)}
    before = evaluate(model, x)
    assert ShareNorm()(model).modified
    assert ops(model).count("LayerNormalization") == 1
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], rtol=1e-6, atol=1e-5)
