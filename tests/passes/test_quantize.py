"""Q/DQ where TensorRT wants it, and nothing else changed."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import check
from llmdeploy.passes.check import Facts
from llmdeploy.passes.linear import change_bias
from llmdeploy.passes.quantize import Int8, Quantize
from llmdeploy.passes.sites import find

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[batch,sequence,16] x) => (float[batch,sequence,16] y)
{
  a = MatMul(x, w)
  l = Add(a, c)
  m = MatMul(x, v)
  s = Add(l, m)
  f = Reshape(s, flat)
  g = Gemm <transB = 1> (f, u, d)
  y = Reshape(g, back)
}
"""


def model() -> ir.Model:
    proto, random = onnx.parser.parse_model(TEXT), np.random.default_rng(0)
    arrays = {
        "w": random.normal(size=(16, 32)),
        "c": random.normal(size=32),
        "v": random.normal(size=(16, 32)),
        "u": random.normal(size=(16, 32)),
        "d": random.normal(size=16),
    }
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype("f4"), name))
    for name, value in (("flat", [-1, 32]), ("back", [2, 3, 16])):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def int8(weight: np.ndarray, scale: float, axis: int = 1, offset=None) -> Int8:
    steps = (np.abs(weight).max(axis=1 - axis) / 127).astype(np.float32)
    wide = steps if axis == 1 else steps[:, None]
    levels = np.rint(weight / wide).astype(np.int8)
    return Int8(scale, ir.tensor(levels), steps, offset)


def layers(made: ir.Model, scale: float = 0.02) -> dict[str, Int8]:
    found = {layer.weight: layer for site in find(made) for layer in site.layers}
    arrays = {n: made.graph.initializers[n].const_value.numpy() for n in "wvu"}
    return {
        found["w"].node: int8(arrays["w"], scale),
        found["v"].node: int8(arrays["v"], scale),
        found["u"].node: int8(arrays["u"], 0.1, axis=0),
    }


def test_where_q_and_dq_are(count):
    made = model()
    before, facts = count(made), Facts.of(made)
    Quantize(layers=layers(made))(made)
    check(made, facts)
    after = count(made)
    # x is shared by two layers, the sum is read by one: two pairs, and a DQ a weight
    assert {
        op: after[op] - before.get(op, 0) for op in after if after[op] != before.get(op, 0)
    } == {
        "QuantizeLinear": 2,
        "DequantizeLinear": 5,
    }
    for node in made.graph:
        if node.op_type in ("MatMul", "Gemm"):
            assert [v.producer().op_type for v in node.inputs[:2]] == ["DequantizeLinear"] * 2
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = node.inputs[2].const_value
            assert zero.dtype == ir.DataType.INT8
            assert not zero.numpy().any()
    kept = {
        name for name, value in made.graph.initializers.items() if value.dtype == ir.DataType.FLOAT
    }
    assert not kept & {"w", "v", "u"}, "float weights that nothing reads are dropped"


def test_the_axis_of_a_transposed_weight():
    made = model()
    Quantize(layers=layers(made))(made)
    axes = {
        node.inputs[0].name: node.attributes["axis"].as_int()
        for node in made.graph
        if node.op_type == "DequantizeLinear" and "axis" in node.attributes
    }
    assert sorted(axes.values()) == [0, 1, 1]


def test_the_numbers_are_those_of_int8(execute):
    made, feed = model(), {"x": np.random.default_rng(1).normal(size=(2, 3, 16)).astype("f4")}
    arrays = {n: made.graph.initializers[n].const_value.numpy() for n in "wcvud"}
    Quantize(layers=layers(made, 0.05))(made)

    def fake(x, step):
        return np.clip(np.rint(x / np.float32(step)), -128, 127) * np.float32(step)

    def weight(w, axis):
        steps = np.abs(w).max(axis=1 - axis, keepdims=True) / np.float32(127)
        return np.rint(w / steps) * steps

    x = fake(feed["x"], 0.05)
    total = x @ weight(arrays["w"], 1) + arrays["c"] + x @ weight(arrays["v"], 1)
    wanted = fake(total, 0.1) @ weight(arrays["u"], 0).T + arrays["d"]
    # a sum on the edge of a step may round either way: one step of 0.1 times a weight
    np.testing.assert_allclose(execute(made, feed)["y"], wanted, rtol=0, atol=1e-3)


def test_an_offset_goes_into_the_bias_or_makes_one(execute):
    plain, moved = model(), model()
    feed = {"x": np.random.default_rng(1).normal(size=(2, 3, 16)).astype("f4")}
    first, second, _ = (layer.node for site in find(plain) for layer in site.layers)
    arrays = {n: plain.graph.initializers[n].const_value.numpy() for n in "wv"}
    one, two = (np.full(32, value, np.float32) for value in (0.5, 0.25))
    for made, offsets in ((plain, (None, None)), (moved, (one, two))):
        quantised = {
            first: int8(arrays["w"], 0.05, offset=offsets[0]),
            second: int8(arrays["v"], 0.05, offset=offsets[1]),
        }
        Quantize(layers=quantised)(made)
        made.graph.outputs.append(next(v for n in made.graph for v in n.outputs if v.name == "s"))
    difference = execute(moved, feed)["s"] - execute(plain, feed)["s"]
    np.testing.assert_allclose(difference, 0.75, rtol=0, atol=1e-5)


def test_a_gemm_that_adds_what_is_computed_takes_two_offsets(execute):
    """Of its shift and of its rounding, each in an Add of its own name: no runtime loads two."""
    proto = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    agraph (float[2,16] x, float[2,16] t) => (float[2,16] y) { [mm] y = Gemm(x, w, t) }
    """)
    weight = np.random.default_rng(0).normal(size=(16, 16)).astype("f4")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    made = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    feed = {name: np.ones((2, 16), "f4") for name in "xt"}
    before = execute(made, feed)["y"]
    for _ in range(2):
        change_bias(made.graph.node("mm"), lambda b: b + 1, 16, "moved")
    assert len({node.name for node in made.graph}) == len(made.graph)
    np.testing.assert_allclose(execute(made, feed)["y"], before + 2, rtol=0, atol=1e-5)


def test_in_whatever_order_layers_are_named(execute):
    made, again, x = model(), model(), np.random.default_rng(1).normal(size=(2, 3, 16))
    Quantize(layers=layers(made))(made)
    Quantize(layers=dict(reversed(layers(again).items())))(again)
    check(again)
    feed = {"x": x.astype(np.float32)}
    np.testing.assert_array_equal(execute(again, feed)["y"], execute(made, feed)["y"])


def test_two_scales_of_one_activation_and_names_that_are_taken(count):
    made = model()
    named = layers(made)
    found = {layer.weight: layer.node for site in find(made) for layer in site.layers}
    named[found["v"]] = replace(named[found["v"]], scale=0.03)
    next(node for node in made.graph if node.op_type == "Add").outputs[0].name = "x.scale"
    Quantize(layers=named)(made)
    check(made)
    assert count(made)["QuantizeLinear"] == 3


@pytest.mark.parametrize("kind", [ir.DataType.FLOAT16, ir.DataType.FLOAT8E4M3FN])
def test_opset_18_is_left_for_what_it_has_no_q_and_dq_for(kind: ir.DataType):
    half = kind == ir.DataType.FLOAT16
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (T[2,16] x) => (T[2,16] y) '
        "<T[16,16] w = {W}> { [mm] y = MatMul(x, w) }".replace(
            "T", "float16" if half else "float"
        ).replace("W", ",".join(["1"] * 256))
    )
    made = ir.from_proto(proto)
    layer = int8(np.ones((16, 16), np.float32), 0.02)
    Quantize(layers={"mm": layer if half else replace(layer, kind=kind)})(made)
    check(made)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale: float):
    made = model()
    with pytest.raises(PassError, match="not positive"):
        Quantize(layers=layers(made, scale))(made)


def test_an_unknown_layer_is_an_error():
    with pytest.raises(PassError, match="no weight MatMul called 'nope'"):
        Quantize(layers={"nope": int8(np.ones((16, 32)), 1.0)})(model())


def test_scales_that_float16_cannot_hold_are_not_zero(execute):
    """Of a dead activation and a dead column: 0 / 0 would be NaN."""
    proto = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    agraph (float16[rows,16] x) => (float16[rows,16] y) { y = MatMul(x, w) }
    """)
    weight = np.random.default_rng(0).normal(size=(16, 16)).astype("f2")
    weight[:, 3] = 0
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    made = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    steps = np.maximum(np.abs(weight).max(axis=0).astype("f4") / 127, np.float32(1e-12))
    layer = Int8(1e-12, ir.tensor(np.rint(weight / steps).astype(np.int8)), steps)
    Quantize(layers={site.layers[0].node: layer for site in find(made)})(made)
    y = execute(made, {"x": np.zeros((2, 16), "f2")})["y"]
    np.testing.assert_array_equal(y, 0)
