"""An engine with a cache computes the logits of the last places alone where that is asked."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from llmdeploy.deploy.ort_kept import KeepLogits
from llmdeploy.deploy.ort_session import KEEP

from .graphs import evaluate, normal, ops, parse

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
WEIGHTS = {
    "w": normal(8, 30),
    "t": normal(30, 8),
    "bias": normal(30),
    "cap": np.float32(3),
    "levels": np.arange(-120, 120, dtype=np.int8).reshape(8, 30),
}
TYPES = {
    "w": "float[8,30]",
    "t": "float[30,8]",
    "bias": "float[30]",
    "cap": "float",
    "levels": "int8[8,30]",
}
FEED = {"x": normal(2, 5, 8), "past_value": normal(2, 1, 4)}
HEADS = [
    "logits = MatMul(x, w)",
    "logits = com.microsoft.FusedMatMul<transB = 1>(x, t)",
    "p = MatMul(x, w) logits = Add(p, bias)",
    "p = MatMul(x, w) q = Div(p, cap) r = Tanh(q) logits = Mul(cap, r)",
    "i = Cast<to = 3>(x) p = MatMulInteger(i, levels) logits = Cast<to = 1>(p)",
]


def causal(body: str, past: str = "past_value") -> ir.Model:
    used = [name for name in WEIGHTS if f"{name})" in body or f"{name}," in body]
    given = "".join(f", {TYPES[name]} {name}" for name in used)
    text = f"""{HEAD}g (float[b,s,8] x, float[b,1,4] {past}{given}) =>
        (float[b,s,30] logits, float[b,1,4] present_value) {{
        present_value = Neg({past})
        {body}
    }}"""
    return parse(text, {name: WEIGHTS[name] for name in used})


@pytest.mark.parametrize("body", HEADS)
def test_the_last_places_are_those_of_the_whole(body: str) -> None:
    model = causal(body)
    ir.passes.common.ShapeInferencePass()(model)
    whole = evaluate(model, FEED)
    assert KeepLogits()(model).modified
    assert not KeepLogits()(model).modified
    for given, wanted in zip(evaluate(model, FEED), whole, strict=True):
        np.testing.assert_array_equal(given, wanted)
    for count in (1, 3, 5, 9):
        logits, present = evaluate(model, {**FEED, KEEP: np.array([count])})
        assert logits.shape == (2, min(count, 5), 30)
        np.testing.assert_allclose(logits, whole[0][:, -count:], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(present, whole[1])


@pytest.mark.parametrize(
    "body",
    [
        "p = MatMul(x, w) m = Softmax<axis = 1>(p) logits = Sub(p, m)",
        "p = MatMul(x, w) logits = Softmax<axis = 1>(p)",
    ],
)
def test_logits_that_look_at_other_places_are_left(body: str) -> None:
    assert not KeepLogits()(causal(body)).modified


def test_what_rounds_the_head_s_input_reads_the_last_places_too() -> None:
    """ONNX Runtime fails on a Slice after DequantizeLinear where it optimises."""
    rounded = "q = QuantizeLinear(x, step, zero) d = DequantizeLinear(q, step, zero)"
    text = f"""{HEAD.replace("20", "21")}g (float[b,s,8] x, float[b,1,4] past_value, float[8,30] w) =>
        (float[b,s,30] logits, float[b,1,4] present_value) <float step = {{0.1}}, int8 zero = {{0}}> {{
        present_value = Neg(past_value)
        {rounded}
        logits = MatMul(d, w)
    }}"""
    model = ir.passes.common.ShapeInferencePass()(parse(text, {"w": WEIGHTS["w"]})).model
    whole = evaluate(model, FEED)[0]
    assert KeepLogits()(model).modified
    assert ops(model)[-4:] == ["Slice", "QuantizeLinear", "DequantizeLinear", "MatMul"]
    ort.InferenceSession(ir.to_proto(model).SerializeToString())
    logits = evaluate(model, {**FEED, KEEP: np.array([2])})[0]
    np.testing.assert_allclose(logits, whole[:, -2:], rtol=1e-6, atol=1e-6)


def test_a_graph_that_takes_such_an_input_already_is_left() -> None:
    model = causal("logits = MatMul(x, w)")
    model.graph.inputs.append(
        ir.Value(name=KEEP, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.INT64))
    )
    assert not KeepLogits()(model).modified


def test_a_graph_without_a_cache_is_left() -> None:
    model = causal("logits = MatMul(x, w)", past="other")
    assert not KeepLogits()(model).modified
    assert "Slice" not in ops(model)
