"""Smoothing is exact whatever the scale is folded into, and says where that is."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import check
from llmdeploy.passes.check import Facts
from llmdeploy.passes.sites import find
from llmdeploy.passes.smooth import Smooth

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
NORM = """
agraph (float[batch,sequence,16] x, float[16] unused) => (float[batch,sequence,32] y{also})
<float[16] g, float[16] b, float[16,32] w, float[32] c, float[16,32] v>
{{
  h = LayerNormalization <axis = -1> (x, g, b)
  a = MatMul(h, w)
  l = Add(a, c)
  m = MatMul(h, v)
  y = Add(l, m)
}}
"""
GRAPHS = {
    "norm": NORM.format(also=""),
    "twin": NORM.format(also=", float[batch,sequence,16] h"),
    "reshaped": """
agraph (float[batch,sequence,16] x) => (float[tokens,32] y)
<float[16] g, float[16] b, float[16,32] w, float[32] c, int64[2] to = {-1, 16}>
{
  n = LayerNormalization <axis = -1> (x, g, b)
  h = Reshape(n, to)
  y = Gemm(h, w, c)
}
""",
    "gain": """
agraph (float[batch,sequence,16] x) => (float[batch,sequence,32] y)
<float[16] g, float[16,32] w>
{
  s = Sigmoid(x)
  h = Mul(s, g)
  y = MatMul(h, w)
}
""",
    "relu": """
agraph (float[batch,sequence,16] x) => (float[batch,sequence,32] y)
<float[16,24] u, float[24] d, float[24,32] w>
{
  p = MatMul(x, u)
  q = Add(p, d)
  h = Relu(q)
  y = MatMul(h, w)
}
""",
    "product": """
agraph (float[batch,sequence,16] x) => (float[batch,sequence,32] y)
<float[16,24] u, float[16,24] t, float[24,32] w>
{
  gate = MatMul(x, u)
  s = Sigmoid(gate)
  silu = Mul(gate, s)
  up = MatMul(x, t)
  h = Mul(silu, up)
  y = MatMul(h, w)
}
""",
    "node": """
agraph (float[batch,sequence,16] x) => (float[batch,sequence,32] y)
<float[32,16] w, float[32] c, int64[2] to = {-1, 16}, int64[3] back = {2, 3, 32}>
{
  t = Gelu(x)
  f = Reshape(t, to)
  g = Gemm <transB = 1> (f, w, c)
  y = Reshape(g, back)
}
""",
    "values": """
agraph (float[2,3,16] x, float[2,4,3,3] p) => (float[2,3,32] y)
<float[16,16] u, float[16] d, float[16,32] w, int64[4] split = {2, 3, 4, 4}, int64[3] merge = {2, 3, 16}>
{
  l = MatMul(x, u)
  v = Add(l, d)
  s = Reshape(v, split)
  r = Transpose <perm = [0, 2, 1, 3]> (s)
  m = MatMul(p, r)
  o = Transpose <perm = [0, 2, 1, 3]> (m)
  h = Reshape(o, merge)
  y = MatMul(h, w)
}
""",
    "grouped": """
agraph (float[2,3,16] x, float[2,4,3,3] p) => (float[2,3,32] y)
<float[16,16] u, float[32,32] w, int64[4] split = {2, 3, 2, 8}, int64[1] two = {2},
 int64[5] more = {2, 2, 2, 3, 8}, int64[4] heads = {2, 4, 3, 8}, int64[3] merge = {2, 3, 32}>
{
  l = MatMul(x, u)
  s = Reshape(l, split)
  r = Transpose <perm = [0, 2, 1, 3]> (s)
  e = Unsqueeze(r, two)
  z = Expand(e, more)
  q = Reshape(z, heads)
  m = MatMul(p, q)
  o = Transpose <perm = [0, 2, 1, 3]> (m)
  h = Reshape(o, merge)
  y = MatMul(h, w)
}
""",
}
GRAPHS["gemm"] = GRAPHS["relu"].replace("p = MatMul(x, u)\n  q = Add(p, d)", "q = Gemm(f, u, d)")
GRAPHS["gemm"] = GRAPHS["gemm"].replace("batch,sequence,", "6,").replace("(f,", "(x,")
#: A row of a bias broadcast over all tokens is one number a channel, whatever its rank.
GRAPHS["row"] = GRAPHS["relu"].replace("float[24] d", "float[1,1,24] d")
GRAPHS["gemm-row"] = GRAPHS["gemm"].replace("float[24] d", "float[1,24] d")
#: What differs from token to token is none: it cannot be divided with the columns.
GRAPHS["rows"] = GRAPHS["relu"].replace("float[24] d", "float[3,24] d")
GRAPHS["gemm-rows"] = GRAPHS["gemm"].replace("float[24] d", "float[6,24] d")
GRAPHS["gemm-twice"] = (
    GRAPHS["gemm"]
    .replace("float[24] d", "float[6,24] t, float[24] d")
    .replace("q = Gemm(x, u, d)", "p = Gemm(x, u, t)\n  q = Add(p, d)")
)
#: What is multiplied is added as well: that is to stay as it was.
GRAPHS["gemm-self"] = """
agraph (float[6,16] x) => (float[6,16] y)
<float[16] g, float[16] b, float[16,16] w>
{
  h = LayerNormalization <axis = -1> (x, g, b)
  y = Gemm(h, w, h)
}
"""
GRAPHS["rms"] = """
agraph (float[batch,sequence,16] x) => (float[batch,sequence,32] y)
<float[16] g, float[16,32] w>
{
  h = RMSNormalization <axis = -1> (x, g)
  y = MatMul(h, w)
}
"""
GRAPHS["beta"] = """
agraph (float[batch,sequence,16] x, float[16] b) => (float[batch,sequence,32] y)
<float[16] g, float[16,32] w>
{
  h = LayerNormalization <axis = -1> (x, g, b)
  y = MatMul(h, w)
}
"""
#: One head of values for all queries' heads, which MatMul broadcasts.
GRAPHS["broadcast"] = (
    GRAPHS["values"]
    .replace("float[16,16] u, float[16] d", "float[16,4] u, float[4] d")
    .replace("split = {2, 3, 4, 4}", "split = {2, 3, 1, 4}")
)
KINDS = {"reshaped": "norm", "relu": "weight", "product": "weight", "values": "weight"}
KINDS |= {"grouped": "weight", "norm": "norm", "twin": "twin", "gain": "gain", "node": "node"}
KINDS |= dict.fromkeys(("gemm", "row", "gemm-row", "broadcast"), "weight")
KINDS |= {"gemm-self": "twin"}
KINDS |= dict.fromkeys(("rows", "gemm-rows", "gemm-twice", "beta"), "node") | {"rms": "norm"}


def weighted(text: str) -> ir.Model:
    """A model from text, its weights random."""
    head = HEAD.replace("20", "23") if "RMSNorm" in text else HEAD
    proto, random = onnx.parser.parse_model(head + text), np.random.default_rng(0)
    for info in proto.graph.value_info:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        array = random.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    del proto.graph.value_info[:]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.fixture
def made():
    """A graph whose weights are random, its shapes inferred."""

    return lambda name: weighted(GRAPHS[name])


def site(model: ir.Model):
    return next(each for each in find(model) if each.tensor in "hf")


def scale_for(model: ir.Model) -> np.ndarray:
    found = site(model)
    random, fold = np.random.default_rng(1), found.fold
    k = found.layers[0].k // fold.repeat
    scale = np.exp(random.normal(size=k)).astype(np.float32)
    heads = scale.reshape(-1, 1, fold.width or k)
    return np.broadcast_to(heads, (len(heads), fold.repeat, heads.shape[2])).reshape(-1)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_numbers_stay(name: str, made, execute, feeds):
    model = made(name)
    found = site(model)
    assert found.fold.kind == KINDS[name]
    feed = feeds(model, {"batch": 2, "sequence": 3, "tokens": 6}, 4)
    before = execute(made(name), feed)
    shifts = {}
    scale = scale_for(model)
    if found.fold.shifts == "channel":
        shifts = {found.tensor: np.linspace(-1, 1, len(scale), dtype=np.float32)}
    elif found.fold.shifts == "scalar":
        shifts = {found.tensor: (0.25 * scale).astype(np.float32)}
    facts = Facts.of(model)
    Smooth(scales={found.tensor: scale}, shifts=shifts)(model)
    check(model, facts)
    after = execute(model, feed)
    for key, array in before.items():
        np.testing.assert_allclose(after[key], array, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("norm", {}),
        ("reshaped", {}),
        ("gain", {}),
        ("relu", {}),
        ("product", {}),
        ("values", {}),
        ("grouped", {}),
        ("twin", {"LayerNormalization": 1}),
        ("node", {"Mul": 1}),
    ],
)
def test_what_it_costs_in_nodes(name: str, more: dict[str, int], made, count):
    model, before = made(name), count(made(name))
    Smooth(scales={site(model).tensor: scale_for(model)}, shifts={})(model)
    after = count(model)
    assert {op: after[op] - before.get(op, 0) for op in after} == {
        op: more.get(op, 0) for op in after
    }


def test_heads_that_share_their_values_share_their_scales(made):
    model = made("grouped")
    with pytest.raises(PassError, match="different scales"):
        Smooth(scales={"h": np.arange(1, 33, dtype=np.float32)}, shifts={})(model)


@pytest.mark.parametrize("names", [("h", "r"), ("r", "h")])
def test_the_order_in_which_they_are_named_is_nothing(names: tuple[str, str], execute, feeds):
    text = """
agraph (float[batch,sequence,16] x) => (float[batch,sequence,32] y)
<float[16] g, float[16,24] u, float[24] d, float[24,32] w>
{
  h = LayerNormalization <axis = -1> (x, g)
  p = MatMul(h, u)
  q = Add(p, d)
  r = Relu(q)
  y = MatMul(r, w)
}
"""
    model, random = weighted(text), np.random.default_rng(1)
    scales = {"h": np.exp(random.normal(size=16)), "r": np.exp(random.normal(size=24))}
    shift = random.normal(size=16).astype(np.float32)
    feed = feeds(model, {"batch": 2, "sequence": 3}, 4)
    before = execute(model, feed)["y"]
    Smooth(scales={n: scales[n].astype(np.float32) for n in names}, shifts={"h": shift})(model)
    np.testing.assert_allclose(execute(model, feed)["y"], before, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["rms", "gain"])
def test_what_cannot_be_shifted_is_not(name: str, made):
    vector = np.full(16, 2, np.float32)
    with pytest.raises(PassError, match="'h' cannot be shifted"):
        Smooth(scales={"h": vector}, shifts={"h": vector})(made(name))


def test_an_unknown_activation_is_an_error(made):
    with pytest.raises(PassError, match="no activation 'nope' of 16 channels"):
        Smooth(scales={"nope": np.ones(16, np.float32)}, shifts={})(made("norm"))


def test_values_that_are_an_output_too_are_left_alone():
    also = "(float[2,3,32] y, float[2,4,3,4] r)"
    model = weighted(GRAPHS["values"].replace("(float[2,3,32] y)", also))
    assert site(model).fold.kind == "node"
