"""Which MatMuls may be INT8, and which not."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.passes.experts import experts
from llmdeploy.passes.sites import find

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def model(text: str, **weights: tuple[int, ...]) -> ir.Model:
    proto = onnx.parser.parse_model(HEAD + text)
    for name, shape in weights.items():
        array = np.ones(shape, np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def refusals(text: str, **weights: tuple[int, ...]) -> list[str]:
    return [layer.refused for site in find(model(text, **weights)) for layer in site.layers]


ONE = "agraph (float[b,s,{k}] x) => (float[b,s,{n}] y) {{ m = MatMul(x, w) y = Relu(m) }}"


@pytest.mark.parametrize(("k", "n"), [(15, 64), (64, 15), (1, 64), (64, 1)])
def test_thin_ones_stay_in_float(k: int, n: int):
    (reason,) = refusals(ONE.format(k=k, n=n), w=(k, n))
    assert "under 16" in reason


def test_wide_enough_ones_do_not():
    assert refusals(ONE.format(k=16, n=16), w=(16, 16)) == [""]


def test_the_output_head_stays_in_float():
    text = "agraph (float[b,s,16] x) => (float[b,s,64] y) { m = MatMul(x, w) y = Add(m, c) }"
    assert "head" in refusals(text, w=(16, 64), c=(64,))[0]
    narrow = text.replace("64", "48")
    assert refusals(narrow, w=(16, 48), c=(48,)) == [""]


def test_a_wide_one_before_another_is_no_head():
    text = """agraph (float[b,s,16] x) => (float[b,s,16] y)
    { m = MatMul(x, w) r = Relu(m) y = MatMul(r, v) }"""
    assert refusals(text, w=(16, 64), v=(64, 16)) == ["", ""]


def test_what_is_no_weight_matmul_is_no_site():
    text = "agraph (float[b,s,16] x, float[16,16] w) => (float[b,s,16] y) { y = MatMul(x, w) }"
    assert find(model(text)) == ()
    scaled = "agraph (float[b,16] x) => (float[b,16] y) { y = Gemm <alpha = 2.0> (x, w) }"
    assert find(model(scaled, w=(16, 16))) == ()
    turned = "agraph (float[16,b] x) => (float[b,16] y) { y = Gemm <transA = 1> (x, w) }"
    assert find(model(turned, w=(16, 16))) == ()


def test_layers_that_share_their_input_share_a_site():
    text = """agraph (float[b,s,16] x) => (float[b,s,16] y, float[b,s,32] z)
    { a = MatMul(x, w) c = MatMul(x, v) y = Relu(a) z = Relu(c) }"""
    (site,) = find(model(text, w=(16, 16), v=(16, 32)))
    assert [(layer.k, layer.n) for layer in site.layers] == [(16, 16), (16, 32)]


def test_rows_are_tokens_where_the_dimensions_say_so():
    text = """agraph (int64[batch,sequence] ids, float[batch,sequence,16] x, float[batch,16] p)
    => (float[batch,sequence,16] y, float[batch,16] z, float[rows,16] f)
    <int64[2] flat = {-1, 16}>
    { a = MatMul(x, w) y = Relu(a) c = MatMul(p, v) z = Relu(c)
      r = Reshape(x, flat) d = MatMul(r, u) f = Relu(d) }"""
    found = {s.tensor: s.tokens for s in find(model(text, w=(16, 16), v=(16, 16), u=(16, 16)))}
    assert found == {"x": True, "p": False, "r": True}


def test_rows_may_be_tokens_sequence_first():
    text = """agraph (int64[batch,sequence] ids, float[batch,sequence,16] x, float[t,batch,16] p)
    => (float[sequence,batch,16] y, float[t,batch,16] z)
    { r = Transpose <perm = [1, 0, 2]> (x) a = MatMul(r, w) y = Relu(a)
      b = MatMul(x, v) e = Transpose <perm = [1, 0, 2]> (b) d = MatMul(p, u) z = Relu(d) }"""
    found = {s.tensor: s.turned for s in find(model(text, w=(16, 16), v=(16, 16), u=(16, 16)))}
    assert found == {"r": True, "x": False, "p": False}


def test_the_stream_is_what_a_norm_divides():
    text = """agraph (float[b,s,16] x) => (float[b,s,16] y, float[b,s,16] z)
    { a = MatMul(x, w) l = Add(a, c) t = Add(l, x) y = LayerNormalization(t, g)
      o = MatMul(y, v) q = Mul(o, o) e = ReduceMean(q) p = Add(o, e) z = Relu(p) }"""
    weights = {"w": (16, 16), "c": (16,), "g": (16,), "v": (16, 16)}
    assert {site.tensor: site.stream for site in find(model(text, **weights))} == {
        "x": "t",
        "y": "o",
    }


@pytest.mark.parametrize(
    ("text", "weight", "macs"),
    [
        ("y = MatMul(x, w)", (1, 32, 32), 32 * 32),
        ("y = MatMul(x, w)", (4, 32, 32), 4 * 32 * 32),
        ("o = Split <axis = 0, num_outputs = 1> (w) e = Squeeze(o, i) y = MatMul(x, e)",
         (1, 32, 32), 32 * 32),
        ("g = Gather(w, i) y = MatMul(x, g)", (4, 32, 32), 32 * 32),
        ("t = Transpose <perm = [0, 2, 1]> (w) y = MatMul(x, t)", (4, 32, 32), 4 * 32 * 32),
        ("g = Slice(w, i, j) y = MatMul(x, g)", (40, 32), 32 * 32),
        ("y = MatMul(x, w)", (4, 32, 1), 0),
        ("y = MatMul(x, w)", (32, 32), 0),
        ("t = Transpose(w) y = MatMul(x, t)", (32, 32), 0),
        ("s = Softmax(w) y = MatMul(x, s)", (4, 32, 32), 0),
    ],
)  # fmt: skip
def test_weights_of_experts_are_counted_and_refused(text: str, weight: tuple, macs: int):
    graph = f"""agraph (float[4,s,32] x) => (float[4,s,n] y)
    <int64[1] i = {{0}}, int64[1] j = {{32}}> {{ {text} }}"""
    found = experts(model(graph, w=weight))
    assert sum(each.macs for each in found) == macs
    assert all("experts" in each.refused for each in found)
