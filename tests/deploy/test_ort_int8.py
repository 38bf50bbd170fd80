import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.deploy.ort_int8 import IntegerMatMul

from .graphs import evaluate, normal, ops, parse, quantized

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
# The integer products are exact; the float graph they are held against rounds each sum of values
# up to 30 to float32.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-5}


def matmul(width: int = 24, columns: int = 40, *, bias: str = "y = Add(p, b)") -> ir.Model:
    weight, scale = quantized(normal(width, columns), axis=1)
    text = f"""{HEAD}g (float[N,S,{width}] x, int8[{width},{columns}] w, float[{columns}] ws, float[{columns}] b)
      => (float[N,S,{columns}] y)
      <float s = {{0.03}}, int8 z = {{0}}> {{
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        p = MatMul(d, wd)
        {bias}
      }}"""
    return parse(text, {"w": weight, "ws": scale, "b": normal(columns, seed=1)})


def feed(width: int = 24) -> dict[str, np.ndarray]:
    # Beyond the range on both sides, so that both clamps are seen.
    return {"x": normal(3, 7, width, seed=2) * 3}


def test_matmul_with_bias_becomes_one_integer_kernel() -> None:
    model = matmul()
    before = evaluate(model, feed())
    assert IntegerMatMul()(model).modified
    assert ops(model) == ["QuantizeLinear", "MatMulIntegerToFloat"]
    np.testing.assert_allclose(evaluate(model, feed())[0], before[0], **TOLERANCE)
    assert not IntegerMatMul()(model).modified


def test_a_bias_on_the_left_is_taken_too() -> None:
    model = matmul(bias="y = Add(b, p)")
    before = evaluate(model, feed())
    IntegerMatMul()(model)
    assert ops(model) == ["QuantizeLinear", "MatMulIntegerToFloat"]
    np.testing.assert_allclose(evaluate(model, feed())[0], before[0], **TOLERANCE)


def test_an_add_of_something_computed_stays() -> None:
    model = matmul(bias="t = Relu(p)\n y = Add(p, t)")
    before = evaluate(model, feed())
    IntegerMatMul()(model)
    assert ops(model) == ["QuantizeLinear", "MatMulIntegerToFloat", "Relu", "Add"]
    np.testing.assert_allclose(evaluate(model, feed())[0], before[0], **TOLERANCE)


def test_the_grid_is_the_same_at_both_ends() -> None:
    model = matmul()
    edges = np.array([-3.84, -3.825, -3.855, 3.81, 3.825, 9.0, -9.0, 0.015], np.float32)
    x = {"x": np.resize(edges, (1, 1, 24)).astype(np.float32)}
    before = evaluate(model, x)
    IntegerMatMul()(model)
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_products_are_not_cut_off(sign: int) -> None:
    """Where a processor lacks a dot product of bytes, uint8 by int8 ends at 32,767 for two."""
    model = matmul(64, 16)
    model.graph.initializers["w"].const_value = ir.tensor(np.full((64, 16), 127 * sign, np.int8))
    x = {"x": np.full((1, 3, 64), 9.0, np.float32)}
    before = evaluate(model, x)
    assert IntegerMatMul()(model).modified
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


@pytest.mark.parametrize(("peak", "kind"), [(64, "int8"), (65, "uint8")])
def test_weights_whose_products_fit_stay_signed(peak: int, kind: str) -> None:
    """255 times 64 twice is within int16, 255 times 65 twice is not: only then they go unsigned."""
    model = matmul(64, 16)
    levels = np.random.default_rng(0).integers(-peak, peak + 1, (64, 16)).astype(np.int8)
    levels[:2] = peak
    model.graph.initializers["w"].const_value = ir.tensor(levels)
    x = {"x": np.full((1, 3, 64), 9.0, np.float32)}
    before = evaluate(model, x)
    IntegerMatMul()(model)
    node = next(node for node in model.graph if node.op_type == "MatMulIntegerToFloat")
    weight = ir.convenience.get_const_tensor(node.inputs[1])
    assert weight is not None
    assert weight.numpy().dtype.name == kind
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


def test_a_weight_that_two_layers_share_is_stored_once() -> None:
    weight, scale = quantized(normal(8, 8), axis=1)
    text = f"""{HEAD}g (float[N,8] x, int8[8,8] w, float[8] ws) => (float[N,8] y)
      <float s = {{0.02}}, int8 z = {{0}}> {{
        wd = DequantizeLinear<axis = 1>(w, ws)
        q0 = QuantizeLinear(x, s, z)
        d0 = DequantizeLinear(q0, s, z)
        h = MatMul(d0, wd)
        q1 = QuantizeLinear(h, s, z)
        d1 = DequantizeLinear(q1, s, z)
        y = MatMul(d1, wd)
      }}"""
    model = parse(text, {"w": weight, "ws": scale})
    before = evaluate(model, {"x": normal(5, 8)})
    IntegerMatMul()(model)
    matrices = [each for each in model.graph.initializers.values() if len(each.shape or ()) == 2]
    assert len(matrices) == 1
    np.testing.assert_allclose(evaluate(model, {"x": normal(5, 8)})[0], before[0], **TOLERANCE)


@pytest.mark.parametrize("by_column", [False, True])
def test_zero_points_of_weights_move_with_them(by_column: bool) -> None:
    zeros = np.arange(-8, 8, dtype=np.int8) if by_column else np.full(16, 5, np.int8)
    weight, scale = quantized(normal(8, 16), axis=1)
    text = f"""{HEAD}g (float[N,8] x, int8[8,16] w, float[16] ws, int8[16] wz) => (float[N,16] y)
      <float s = {{0.02}}, int8 z = {{0}}> {{
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws, wz)
        y = MatMul(d, wd)
      }}"""
    model = parse(text, {"w": weight, "ws": scale, "wz": zeros})
    before = evaluate(model, {"x": normal(5, 8)})
    assert IntegerMatMul()(model).modified
    np.testing.assert_allclose(evaluate(model, {"x": normal(5, 8)})[0], before[0], **TOLERANCE)


def test_query_key_and_value_share_one_quantize() -> None:
    columns = 16
    weight, scale = quantized(normal(8, columns), axis=1)
    branches = "\n".join(
        f"""q{i} = QuantizeLinear(x, s, z)
            d{i} = DequantizeLinear(q{i}, s, z)
            w{i} = DequantizeLinear<axis = 1>(w, ws)
            y{i} = MatMul(d{i}, w{i})"""
        for i in range(3)
    )
    text = f"""{HEAD}g (float[N,8] x, int8[8,16] w, float[16] ws)
      => (float[N,16] y0, float[N,16] y1, float[N,16] y2)
      <float s = {{0.02}}, int8 z = {{0}}> {{ {branches} }}"""
    model = parse(text, {"w": weight, "ws": scale})
    x = {"x": normal(5, 8)}
    before = evaluate(model, x)
    IntegerMatMul()(model)
    assert ops(model).count("QuantizeLinear") == 1
    for old, new in zip(before, evaluate(model, x), strict=True):
        np.testing.assert_allclose(new, old, **TOLERANCE)


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm(transposed: bool) -> None:
    weight, scale = quantized(normal(8, 16), axis=1)
    stored = weight.T.copy() if transposed else weight
    rows, columns = stored.shape
    axis = 0 if transposed else 1
    text = f"""{HEAD}g (float[N,8] x, int8[{rows},{columns}] w, float[16] ws, float[16] b) => (float[N,16] y)
      <float s = {{0.02}}, int8 z = {{0}}> {{
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = {axis}>(w, ws)
        y = Gemm<transB = {int(transposed)}>(d, wd, b)
      }}"""
    model = parse(text, {"w": stored, "ws": scale, "b": normal(16, seed=3)})
    x = {"x": normal(5, 8)}
    before = evaluate(model, x)
    IntegerMatMul()(model)
    assert ops(model) == ["QuantizeLinear", "MatMulIntegerToFloat"]
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


def test_unsigned_and_asymmetric_activations_keep_their_zero_point() -> None:
    weight, scale = quantized(normal(8, 16), axis=1)
    text = f"""{HEAD}g (float[N,8] x, int8[8,16] w, float[16] ws) => (float[N,16] y)
      <float s = {{0.02}}, uint8 z = {{77}}> {{
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        y = MatMul(d, wd)
      }}"""
    model = parse(text, {"w": weight, "ws": scale})
    x = {"x": normal(5, 8)}
    before = evaluate(model, x)
    assert IntegerMatMul()(model).modified
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("DequantizeLinear(q, s, z)", "DequantizeLinear(q, t, z)"), "another scale"),
        (("<axis = 1>", "<axis = 0>"), "a scale a row of the weight"),
        (("MatMul(d, wd)", "MatMul(x, wd)"), "a weight alone"),
    ],
)
def test_what_has_no_integer_kernel_stays(change: tuple[str, str], why: str) -> None:
    weight, scale = quantized(normal(16, 16), axis=1)
    text = f"""{HEAD}g (float[N,16] x, int8[16,16] w, float[16] ws) => (float[N,16] y)
      <float s = {{0.02}}, float t = {{0.03}}, int8 z = {{0}}> {{
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        y = MatMul(d, wd)
      }}""".replace(*change)
    model = parse(text, {"w": weight, "ws": scale})
    assert not IntegerMatMul()(model).modified, why


@pytest.mark.parametrize(
    ("body", "bias"),
    [
        ("y = Gemm(d, wd, b)", (1,)),
        ("y = Gemm(d, wd, b)", (1, 16)),
        (
            "wz = Cast<to = 3>(x0)\n wd2 = DequantizeLinear<axis = 1>(w, ws, wz)\n y = MatMul(d, wd2)",
            (1,),
        ),
    ],
)
def test_what_the_kernel_would_not_do_stays(body: str, bias: tuple[int, ...]) -> None:
    weight, scale = quantized(normal(16, 16), axis=1)
    text = f"""{HEAD}g (float[N,16] x, float[16] x0, int8[16,16] w, float[16] ws, float{list(bias)} b)
      => (float[N,16] y) <float s = {{0.02}}, int8 z = {{0}}> {{
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        {body}
      }}"""
    model = parse(text, {"w": weight, "ws": scale, "b": np.ones(bias, np.float32)})
    assert not IntegerMatMul()(model).modified


def test_a_bias_that_is_made_after_the_product_is_taken() -> None:
    model = matmul(bias="c = Constant<value_floats = [1.0, 2.0, 3.0]>()\n y = Add(p, c)", columns=3)
    before = evaluate(model, feed())
    IntegerMatMul()(model)
    assert ops(model)[-1] == "MatMulIntegerToFloat"
    onnx.checker.check_model(ir.to_proto(model))
    np.testing.assert_allclose(evaluate(model, feed())[0], before[0], **TOLERANCE)


@pytest.mark.parametrize(("moved", "stays"), [("-0.63", False), ("0.84", False), ("-0.635", True)])
def test_an_added_constant_of_whole_steps_becomes_the_zero_point(moved: str, stays: bool) -> None:
    weight, scale = quantized(normal(16, 16), axis=1)
    text = f"""{HEAD}g (float[N,16] x, int8[16,16] w, float[16] ws) => (float[N,16] y)
      <float s = {{0.03}}, int8 z = {{0}}, float c = {{{moved}}}> {{
        m = Add(x, c)
        q = QuantizeLinear(m, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        y = MatMul(d, wd)
      }}"""
    model = parse(text, {"w": weight, "ws": scale})
    # Values between the edges of two steps: on them either side may round.
    x = {"x": (np.arange(64).reshape(4, 16) - 40).astype(np.float32) * 0.03 * 3 + 0.001}
    before = evaluate(model, x)
    IntegerMatMul()(model)
    assert ("Add" in ops(model)) is stays
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


def test_an_added_constant_that_gives_axes_stays() -> None:
    weight, scale = quantized(normal(16, 16), axis=1)
    text = f"""{HEAD}g (float[N,16] x, int8[16,16] w, float[16] ws) => (float[1,N,16] y)
      <float s = {{0.02}}, int8 z = {{0}}, float[1,1,1] c = {{0.04}}> {{
        m = Add(x, c)
        q = QuantizeLinear(m, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws)
        y = MatMul(d, wd)
      }}"""
    model = parse(text, {"w": weight, "ws": scale})
    before = evaluate(model, {"x": normal(5, 16)})
    assert IntegerMatMul()(model).modified
    after = evaluate(model, {"x": normal(5, 16)})
    assert after[0].shape == (1, 5, 16)
    np.testing.assert_allclose(after[0], before[0], **TOLERANCE)
