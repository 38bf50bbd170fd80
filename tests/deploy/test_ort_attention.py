import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.deploy.ort_attention import FuseAttention, hidden_rows_are_zero

from .graphs import evaluate, normal, ops, parse

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
# The kernel sums in another order than separate nodes may: some units in the last place.
TOLERANCE = {"rtol": 2e-6, "atol": 2e-6}
LOWEST = "-3.4028234e38"

KEYS = {
    "one transpose": "kt = Transpose<perm = [0, 2, 3, 1]>(k4)",
    "two transposes": "kh = Transpose<perm = [0, 2, 1, 3]>(k4)\n kt = Transpose<perm = [0, 1, 3, 2]>(kh)",
    "through rank 3": """kh = Transpose<perm = [0, 2, 1, 3]>(k4)
        k3 = Reshape(kh, flat)
        k3t = Transpose<perm = [0, 2, 1]>(k3)
        kt = Reshape(k3t, back)""",
}
WEIGHTS = {
    "plain": "w = Softmax<axis = -1>(sm)",
    "guarded": "p = Softmax<axis = -1>(sm)\n n = IsNaN(p)\n w = Where(n, zero, p)",
}


def attention(
    key: str = "one transpose", weights: str = "guarded", mask: str = "B,1,S,S", merge: str = "y"
) -> ir.Model:
    """Two heads of four, batch 2, sequence 5 where rank 3 needs the numbers."""
    batch = "2" if key == "through rank 3" else "B"
    size = "5" if key == "through rank 3" else "S"
    mask = mask.replace("B", batch).replace("S", size)
    shape = f"float[{batch},{size},8]"
    text = f"""{HEAD}g ({shape} q, {shape} k, {shape} v, float[{mask}] m) => ({shape} {merge})
      <int64[4] split = {{0, 0, 2, 4}}, int64[3] join = {{0, 0, 8}}, int64[3] flat = {{4, 5, 4}},
       int64[4] back = {{2, 2, 4, 5}}, float half = {{0.7071}}, float zero = {{0.0}}> {{
        q4 = Reshape(q, split)
        k4 = Reshape(k, split)
        v4 = Reshape(v, split)
        qh = Transpose<perm = [0, 2, 1, 3]>(q4)
        {KEYS[key]}
        vh = Transpose<perm = [0, 2, 1, 3]>(v4)
        qs = Mul(qh, half)
        ks = Mul(kt, half)
        s = MatMul(qs, ks)
        sm = Add(s, m)
        {WEIGHTS[weights]}
        o = MatMul(w, vh)
        ot = Transpose<perm = [0, 2, 1, 3]>(o)
        y = Reshape(ot, join)
      }}"""
    return ir.passes.common.ShapeInferencePass()(parse(text)).model


def feed(mask: tuple[int, ...] = (2, 1, 5, 5), *, hidden: bool = False) -> dict[str, np.ndarray]:
    bias = np.zeros(mask, np.float32)
    bias[..., 3:] = -np.inf
    if hidden:
        bias[0] = -np.inf
    q, k, v = (normal(2, 5, 8, seed=seed) for seed in range(3))
    return {"q": q, "k": k, "v": v, "m": bias}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("key", KEYS)
def test_every_spelling_becomes_one_attention(key: str, weights: str) -> None:
    model = attention(key, weights)
    before = evaluate(model, feed())
    assert FuseAttention()(model).modified
    assert ops(model) == ["Max", "IsInf", "Where", "Attention"]
    assert model.opset_imports[""] == 23
    np.testing.assert_allclose(evaluate(model, feed())[0], before[0], **TOLERANCE)


def test_rows_that_are_hidden_whole_stay_zero() -> None:
    model = attention()
    before = evaluate(model, feed(hidden=True))
    FuseAttention()(model)
    after = evaluate(model, feed(hidden=True))
    assert not before[0][0].any()
    np.testing.assert_allclose(after[0], before[0], **TOLERANCE)


CLEARED = f"""{HEAD}g (float[B,S,8] q, float[B,S,8] k, float[B,S,8] v, float[B,1,1,S] m, bool[B,1,1,1] c) => (float[B,S,8] y)
  <int64[4] split = {{0, 0, 2, 4}}, int64[3] join = {{0, 0, 8}}, float zero = {{0.0}}> {{
    q4 = Reshape(q, split)
    k4 = Reshape(k, split)
    v4 = Reshape(v, split)
    qh = Transpose<perm = [0, 2, 1, 3]>(q4)
    kt = Transpose<perm = [0, 2, 3, 1]>(k4)
    vh = Transpose<perm = [0, 2, 1, 3]>(v4)
    s = MatMul(qh, kt)
    sm = Add(s, m)
    w = Softmax<axis = -1>(sm)
    o = MatMul(w, vh)
    oc = Where(c, zero, o)
    ot = Transpose<perm = [0, 2, 1, 3]>(oc)
    y = Reshape(ot, join)
  }}"""


@pytest.mark.parametrize("hide", [True, False])
def test_rows_that_are_cleared_afterwards_are_hidden_by_the_mask(hide: bool) -> None:
    model = ir.passes.common.ShapeInferencePass()(parse(CLEARED)).model
    x = feed((2, 1, 1, 5)) | {"c": np.array([True, False]).reshape(2, 1, 1, 1)}
    x["m"] = np.where(np.isinf(x["m"]), np.finfo(np.float32).min, 0).astype(np.float32)
    before = evaluate(model, x)
    assert FuseAttention(hide=hide)(model).modified
    assert ("Transpose" in ops(model)) is not hide
    after = evaluate(model, x)
    assert not after[0][0].any()
    np.testing.assert_allclose(after[0], before[0], **TOLERANCE)


def test_rows_of_the_lowest_number_that_are_not_cleared_stay_a_mean() -> None:
    model = ir.passes.common.ShapeInferencePass()(parse(CLEARED)).model
    x = feed((2, 1, 1, 5)) | {"c": np.array([True, False]).reshape(2, 1, 1, 1)}
    x["m"] = np.full_like(x["m"], np.finfo(np.float32).min)
    before = evaluate(model, x)
    FuseAttention()(model)
    after = evaluate(model, x)
    assert after[0][1].any()
    np.testing.assert_allclose(after[0], before[0], **TOLERANCE)


def test_this_onnx_runtime_gives_zero_for_hidden_rows() -> None:
    assert hidden_rows_are_zero()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_rows_of_the_lowest_number_stay_a_mean(weights: str) -> None:
    model = attention(weights=weights)
    x = feed(hidden=True)
    x["m"] = np.where(np.isinf(x["m"]), np.finfo(np.float32).min, 0).astype(np.float32)
    before = evaluate(model, x)
    assert before[0][0].any()
    FuseAttention()(model)
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


@pytest.mark.parametrize(
    "added", ["c = Add(s, b)\n sm = Add(c, m)", "t = Add(b, m)\n sm = Add(s, t)"]
)
def test_keys_that_two_masks_of_the_lowest_number_hide_are_in_no_mean(added: str) -> None:
    text = CLEARED.replace("bool[B,1,1,1] c", "float[S,S] b").replace("sm = Add(s, m)", added)
    text = text.replace("oc = Where(c, zero, o)", "oc = Identity(o)")
    model = ir.passes.common.ShapeInferencePass()(parse(text)).model
    x, low = feed((2, 1, 1, 5)), np.finfo(np.float32).min
    x["m"] = np.where(np.arange(5) < 2, low, 0).astype(np.float32) * np.ones((2, 1, 1, 1), "f4")
    x["b"] = np.triu(np.full((5, 5), low, np.float32), 1)
    before = evaluate(model, x)
    assert FuseAttention()(model).modified
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


def test_a_mask_that_chooses_between_two_numbers_is_not_asked_for_infinities() -> None:
    text = CLEARED.replace("float[B,1,1,S] m, bool[B,1,1,1] c", "bool[B,1,1,S] seen")
    text = text.replace("float zero = {0.0}", f"float zero = {{0.0}}, float low = {{{LOWEST}}}")
    text = text.replace("sm = Add(s, m)", "m = Where(seen, zero, low)\n sm = Add(s, m)")
    text = text.replace("oc = Where(c, zero, o)", "oc = Identity(o)")
    model = ir.passes.common.ShapeInferencePass()(parse(text)).model
    assert FuseAttention()(model).modified
    assert "IsInf" not in ops(model)


def test_a_mask_of_one_row_is_widened() -> None:
    model = attention(mask="B,1,1,S")
    x = feed((2, 1, 1, 5))
    before = evaluate(model, x)
    FuseAttention()(model)
    assert ops(model)[-4:] == ["Shape", "Concat", "Expand", "Attention"]
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


def test_heads_that_are_not_merged_stay_split() -> None:
    text = f"""{HEAD}g (float[B,2,S,4] q, float[B,2,T,4] k, float[B,2,T,4] v) => (float[B,2,S,4] y)
      <float root = {{2.0}}> {{
        kt = Transpose<perm = [0, 1, 3, 2]>(k)
        s = MatMul(q, kt)
        sd = Div(s, root)
        w = Softmax<axis = -1>(sd)
        y = MatMul(w, v)
      }}"""
    model = ir.passes.common.ShapeInferencePass()(parse(text)).model
    q, k, v = normal(3, 2, 1, 4), normal(3, 2, 6, 4, seed=1), normal(3, 2, 6, 4, seed=2)
    x = {"q": q, "k": k, "v": v}
    before = evaluate(model, x)
    FuseAttention()(model)
    assert ops(model) == ["Attention"]
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


@pytest.mark.parametrize(
    "change",
    [
        ("w = Softmax<axis = -1>(sm)", "w = Softmax<axis = 1>(sm)"),
        ("o = MatMul(w, vh)", "o0 = MatMul(w, vh)\n w1 = ReduceSum(w)\n o = Mul(o0, w1)"),
        ("kt = Transpose<perm = [0, 2, 3, 1]>(k4)", "kt = Transpose<perm = [0, 2, 1, 3]>(k4)"),
    ],
)
def test_what_is_not_attention_stays(change: tuple[str, str]) -> None:
    source = f"""{HEAD}g (float[2,4,8] q, float[2,4,8] k, float[2,4,8] v, float[2,1,4,4] m) => (float[2,4,8] y)
      <int64[4] split = {{0, 0, 2, 4}}, int64[3] join = {{0, 0, 8}}> {{
        q4 = Reshape(q, split)
        k4 = Reshape(k, split)
        v4 = Reshape(v, split)
        qh = Transpose<perm = [0, 2, 1, 3]>(q4)
        kt = Transpose<perm = [0, 2, 3, 1]>(k4)
        vh = Transpose<perm = [0, 2, 1, 3]>(v4)
        s = MatMul(qh, kt)
        sm = Add(s, m)
        w = Softmax<axis = -1>(sm)
        o = MatMul(w, vh)
        ot = Transpose<perm = [0, 2, 1, 3]>(o)
        y = Reshape(ot, join)
      }}""".replace(*change)
    model = ir.passes.common.ShapeInferencePass()(parse(source)).model
    assert not FuseAttention()(model).modified
    assert model.opset_imports[""] == 20


def test_an_operator_that_changed_its_meaning_keeps_the_opset() -> None:
    text = f"""{HEAD}g (float[1,4,3,3] x, float[2] s, float[2] b, float[1,1,4,4] t) => (float[1,4,3,3] y, float[1,1,4,4] z) {{
        y = GroupNormalization<num_groups = 2>(x, s, b)
        tt = Transpose<perm = [0, 1, 3, 2]>(t)
        p = MatMul(t, tt)
        w = Softmax(p)
        z = MatMul(w, t)
      }}"""
    model = parse(text)
    assert not FuseAttention()(model).modified


GROUPS = {
    "keys transposed apart": """ku = Unsqueeze(k, two)
        ke = Expand(ku, copies)
        kt5 = Transpose<perm = [0, 1, 2, 4, 3]>(ke)
        kt = Reshape(kt5, turned)""",
    "keys transposed together": """ku = Unsqueeze(k, two)
        ke = Expand(ku, copies)
        kr = Reshape(ke, joined)
        kt = Transpose<perm = [0, 1, 3, 2]>(kr)""",
}


@pytest.mark.parametrize("keys", GROUPS)
def test_keys_and_values_that_a_group_shares_are_not_copied(keys: str) -> None:
    text = f"""{HEAD}g (float[2,4,3,8] q, float[2,2,5,8] k, float[2,2,5,8] v, float[2,1,3,5] m) => (float[2,4,3,8] y)
      <int64[1] two = {{2}}, int64[5] copies = {{2, 2, 2, 5, 8}}, int64[4] joined = {{2, 4, 5, 8}},
       int64[4] turned = {{2, 4, 8, 5}}> {{
        {GROUPS[keys]}
        vu = Unsqueeze(v, two)
        ve = Expand(vu, copies)
        vr = Reshape(ve, joined)
        s = MatMul(q, kt)
        sm = Add(s, m)
        w = Softmax<axis = -1>(sm)
        y = MatMul(w, vr)
      }}"""
    model = ir.passes.common.ShapeInferencePass()(parse(text)).model
    x = {
        "q": normal(2, 4, 3, 8),
        "k": normal(2, 2, 5, 8, seed=1),
        "v": normal(2, 2, 5, 8, seed=2),
        "m": normal(2, 1, 3, 5, seed=3),
    }
    before = evaluate(model, x)
    FuseAttention()(model)
    assert ops(model) == ["Max", "IsInf", "Where", "Attention"]
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


SHARED = {
    "one head": ("", "", "kt = Transpose<perm = [0, 2, 3, 1]>(k4)", "", 1),
    "two heads": (
        ", int64[1] two = {2}, int64[5] copies = {2, 2, 2, 5, 4}, int64[4] joined = {2, 4, 5, 4}",
        """kh = Transpose<perm = [0, 2, 1, 3]>(k4)
        ku = Unsqueeze(kh, two)
        ke = Expand(ku, copies)
        kr = Reshape(ke, joined)""",
        "kt = Transpose<perm = [0, 1, 3, 2]>(kr)",
        "vu = Unsqueeze(vh, two)\n ve = Expand(vu, copies)\n vr = Reshape(ve, joined)",
        2,
    ),
}


def shared(kind: str, scale: str = "0.5") -> ir.Model:
    """Four heads of queries, the keys and values of one or two, split and merged around."""
    constants, copied, turned, values, heads = SHARED[kind]
    text = f"""{HEAD}g (float[2,5,16] q, float[2,5,{4 * heads}] k, float[2,5,{4 * heads}] v) => (float[2,5,16] y)
      <int64[4] split = {{0, 0, 4, 4}}, int64[4] few = {{0, 0, {heads}, 4}}, int64[3] join = {{0, 0, 16}},
       float s = {{{scale}}}{constants}> {{
        q4 = Reshape(q, split)
        k4 = Reshape(k, few)
        v4 = Reshape(v, few)
        qh = Transpose<perm = [0, 2, 1, 3]>(q4)
        vh = Transpose<perm = [0, 2, 1, 3]>(v4)
        {copied}
        {turned}
        {values}
        p = MatMul(qh, kt)
        ps = Mul(p, s)
        w = Softmax<axis = -1>(ps)
        o = MatMul(w, {"vh" if heads == 1 else "vr"})
        ot = Transpose<perm = [0, 2, 1, 3]>(o)
        y = Reshape(ot, join)
      }}"""
    return ir.passes.common.ShapeInferencePass()(parse(text)).model


@pytest.mark.parametrize("kind", SHARED)
def test_heads_that_are_shared_are_counted_where_they_are_split(kind: str) -> None:
    model = shared(kind)
    width = 4 * SHARED[kind][-1]
    x = {"q": normal(2, 5, 16), "k": normal(2, 5, width, seed=1), "v": normal(2, 5, width, seed=2)}
    before = evaluate(model, x)
    FuseAttention()(model)
    assert ops(model) == ["Attention"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


@pytest.mark.parametrize("scale", ["0.0", "-0.5"])
def test_a_scale_that_the_kernel_refuses_stays(scale: str) -> None:
    assert not FuseAttention()(shared("one head", scale)).modified


@pytest.mark.parametrize("shapes", ["1,4,3,8 2,4,5,8 2,4,5,8", "2,4,3,8 2,1,5,8 2,4,5,8"])
def test_queries_or_keys_that_alone_are_spread_stay(shapes: str) -> None:
    q, k, v = shapes.split()
    text = f"""{HEAD}g (float[{q}] q, float[{k}] k, float[{v}] v) => (float[2,4,3,8] y) {{
        kt = Transpose<perm = [0, 1, 3, 2]>(k)
        s = MatMul(q, kt)
        w = Softmax<axis = -1>(s)
        y = MatMul(w, v)
      }}"""
    model = ir.passes.common.ShapeInferencePass()(parse(text)).model
    assert not FuseAttention()(model).modified


BIASED = f"""{HEAD}g (float[B,S,8] q, float[B,S,8] k, float[B,S,8] v, float[1,2,S,S] b, float[B,1,1,S] m) => (float[B,S,8] y)
  <int64[4] split = {{0, 0, 2, 4}}, int64[3] join = {{0, 0, 8}}> {{
    q4 = Reshape(q, split)
    k4 = Reshape(k, split)
    v4 = Reshape(v, split)
    qh = Transpose<perm = [0, 2, 1, 3]>(q4)
    kt = Transpose<perm = [0, 2, 3, 1]>(k4)
    vh = Transpose<perm = [0, 2, 1, 3]>(v4)
    s = MatMul(qh, kt)
    sb = Add(s, b)
    sm = Add(m, sb)
    w = Softmax<axis = -1>(sm)
    o = MatMul(w, vh)
    s2 = MatMul(qh, kt)
    sb2 = Add(b, s2)
    sm2 = Add(sb2, m)
    w2 = Softmax<axis = -1>(sm2)
    o2 = MatMul(w2, o)
    ot = Transpose<perm = [0, 2, 1, 3]>(o2)
    y = Reshape(ot, join)
  }}"""


def test_a_bias_by_position_and_a_mask_are_added_once_for_all_layers() -> None:
    model = ir.passes.common.ShapeInferencePass()(parse(BIASED)).model
    x = feed((2, 1, 1, 5)) | {"b": normal(1, 2, 5, 5, seed=7)}
    x["m"] = np.where(np.isinf(x["m"]), np.finfo(np.float32).min, 0).astype(np.float32)
    x["m"][0] = np.finfo(np.float32).min  # rows that see nothing keep their mean
    before = evaluate(model, x)
    FuseAttention()(model)
    assert ops(model).count("Attention") == 2
    assert ops(model).count("Add") == ops(model).count("Max") == 1
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)
