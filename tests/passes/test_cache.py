"""A cache as int8: what the graph takes and gives, its numbers, and what is left as it is."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes.cache import Kept, QuantizeCache, held, refused
from llmdeploy.passes.cache_places import reader
from llmdeploy.passes.check import Facts, check
from onnx_ir.passes.common import ShapeInferencePass

from .conftest import Feed, draw, ops, parse, run

HEADS, WIDTH = 2, 4
ENDS = """(float[b,4,s,4] q, float[b,2,s,4] nk, float[b,2,s,4] nv,
       float[b,2,p,4] past_key, float[b,2,p,4] past_value)
  => (float[b,4,s,4] y, float[b,2,t,4] present_key, float[b,2,t,4] present_value)"""
GROUPED = f"""<ir_version: 11, opset_import: ["" : 20]>
g {ENDS}
<int64[1] two = {{2}}, int64[5] twice = {{1, 1, 2, 1, 1}}, int64[4] heads = {{0, 4, -1, 4}},
 float scale = {{0.5}}, int64[1] all = {{-1}}>
{{
  present_key = Concat <axis = -2> (past_key, nk)
  present_value = Concat <axis = -2> (past_value, nv)
  size = Shape (present_key)
  k5 = Unsqueeze (present_key, two)
  ke = Expand (k5, twice)
  kr = Reshape (ke, heads)
  v5 = Unsqueeze (present_value, two)
  ve = Expand (v5, twice)
  vr = Reshape (ve, heads)
  kt = Transpose <perm = [0, 1, 3, 2]> (kr)
  qs = Mul (q, scale)
  scores = MatMul (qs, kt)
  p = Softmax <axis = -1> (scores)
  mixed = MatMul (p, vr)
  zero = Sub (size, size)
  none = ReduceSum <keepdims = 0> (zero)
  nothing = Cast <to = 1> (none)
  y = Add (mixed, nothing)
}}"""
OPERATOR = f"""<ir_version: 11, opset_import: ["" : 23]>
g {ENDS}
{{
  present_key = Concat <axis = 2> (past_key, nk)
  present_value = Concat <axis = 2> (past_value, nv)
  mixed = Attention <scale = 0.5> (q, present_key, present_value)
  y = Identity (mixed)
}}"""
#: What attention gives is given out.
GIVEN = OPERATOR.replace("mixed =", "y =").replace("  y = Identity (mixed)\n", "")
#: Its keys are read twice, and its values go through what is not followed.
UNKNOWN = f"""<ir_version: 11, opset_import: ["" : 23]>
g {ENDS}
{{
  present_key = Concat <axis = 2> (past_key, nk)
  present_value = Concat <axis = 2> (past_value, nv)
  k = Tanh (present_key)
  v = Relu (present_value)
  both = Add (k, present_key)
  y = Attention <scale = 0.5> (q, both, v)
}}"""
DIMS = {"b": 2, "s": 3, "p": 5, "t": 8}


def model(text: str) -> ir.Model:
    return ShapeInferencePass()(parse(text)).model


def steps(most: np.ndarray) -> np.ndarray:
    return (np.abs(most).max(axis=(0, 2)) / 127).astype(np.float32)


def narrowed(made: ir.Model, feed: Feed) -> tuple[ir.Model, Feed, dict[str, np.ndarray]]:
    """The model with its cache as int8, the feed that it takes, and the steps by output."""
    sizes = {
        kind: steps(np.concatenate([feed[f"past_{kind}"], feed[f"n{kind[0]}"]], axis=2))
        for kind in ("key", "value")
    }
    tensors = {f"past_{kind}": Kept(f"present_{kind}", each) for kind, each in sizes.items()}
    changed = QuantizeCache(tensors=tensors)(made).model
    levels = {
        f"past_{kind}": np.rint(feed[f"past_{kind}"] / each[None, :, None]).astype(np.int8)
        for kind, each in sizes.items()
    }
    return changed, {**feed, **levels}, {f"present_{kind}": each for kind, each in sizes.items()}


@pytest.mark.parametrize("text", [GROUPED, OPERATOR, GIVEN, UNKNOWN])
def test_levels_stand_for_what_was_kept(text: str) -> None:
    made = model(text)
    feed = draw(made, DIMS, below=9)
    wanted = run(made, feed)
    changed, fed, sizes = narrowed(model(text), feed)
    check(changed, Facts.of(changed))
    found = run(changed, fed)
    for name, each in sizes.items():
        assert found[name].dtype == np.int8
        error = np.abs(found[name] * each[None, :, None] - wanted[name])
        assert (error <= each[None, :, None] * 0.501).all()
    np.testing.assert_allclose(found["y"], wanted["y"], atol=0.02)


def test_steps_go_to_what_is_of_the_new_tokens() -> None:
    changed, _, _ = narrowed(model(GROUPED), draw(model(GROUPED), DIMS, below=9))
    products = [node for node in changed.graph if node.op_type == "Mul"]
    dims = {str(node.outputs[0].shape) for node in products}
    assert dims == {"[b,2,s,4]", "[b,4,s,4]"}  # none of the t tokens that are kept
    query = next(node for node in products if node.name == "past_key.query.multiply")
    (scores,) = (node for node in changed.graph if "scores" in [v.name for v in node.outputs])
    assert scores.inputs[0] is not None
    scaled = scores.inputs[0].producer()
    assert scaled is not None
    assert query.outputs[0].consumers()[0].name == scaled.name  # an engine fuses the scale
    assert ops(changed)["QuantizeLinear"] == ops(changed)["DequantizeLinear"] == 2


def test_hidden_rows_are_zero_before_the_steps() -> None:
    text = GROUPED.replace("y = Add (mixed, nothing)", "h = Less (scores, scores)\n  i = Cast <to = 1> (h)\n"
        "  j = ReduceMax <keepdims = 1> (i, all)\n  c = Cast <to = 9> (j)\n"
        "  shown = Where (c, nil, mixed)\n  y = Add (shown, nothing)")  # fmt: skip
    text = text.replace("float scale = {0.5}", "float scale = {0.5}, float nil = {0.0}")
    feed = draw(model(text), DIMS, below=9)
    changed, fed, _ = narrowed(model(text), feed)
    where = next(node for node in changed.graph if node.op_type == "Where")
    assert where.inputs[2] is not None
    assert where.inputs[2].name == "mixed"
    np.testing.assert_allclose(run(changed, fed)["y"], run(model(text), feed)["y"], atol=0.02)


def test_what_is_not_followed_is_multiplied_itself() -> None:
    made = model(UNKNOWN)
    concats = [node for node in made.graph if node.op_type == "Concat"]
    assert [reader(node.outputs[0]) for node in concats] == [None, None]


def slice_after(text: str) -> str:
    """A cache of which attention and the next step see a window."""
    return text.replace(
        "present_key = Concat <axis = 2> (past_key, nk)",
        "whole = Concat <axis = 2> (past_key, nk)\n  present_key = Relu (whole)",
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (slice_after, "is not present_key"),
        (lambda text: text.replace("(past_key, nk)", "(nk, past_key)"), "after it"),
        (lambda text: text.replace("axis = 2> (past_key", "axis = 0> (past_key"), "after it"),
        (lambda text: text.replace("(past_key, nk)", "(past_value, nk)"), "is read by"),
    ],
)
def test_what_does_not_grow_is_refused_by_name(change: Callable[[str], str], why: str) -> None:
    made = parse(change(OPERATOR))
    assert why in refused(made.graph, "past_key", "present_key")
    with pytest.raises(PassError, match="cache past_key"):
        QuantizeCache(tensors={"past_key": Kept("present_key", np.ones((2, 4), "f4"))})(made)


def test_a_step_is_positive() -> None:
    with pytest.raises(PassError, match="not positive"):
        QuantizeCache(tensors={"past_key": Kept("present_key", np.zeros((2, 4), "f4"))})(
            model(OPERATOR)
        )


def halves(read: str) -> str:
    """Keys and values of 16 bits, cast when they come and when they go; attention reads `read`."""
    text = OPERATOR.replace("float[b,4,s,4] q", "float16[b,4,s,4] q")
    text = text.replace("float[b,2,s,4] n", "float16[b,2,s,4] n").replace(
        "float[b,4,s,4] y", "float16[b,4,s,4] y"
    )
    for kind in ("key", "value"):
        text = text.replace(
            f"present_{kind} = Concat <axis = 2> (past_{kind},",
            f"half_{kind} = Cast <to = 10> (past_{kind})\n  kept_{kind} = Concat <axis = 2> (half_{kind},",
        ).replace(
            f"n{kind[0]})\n", f"n{kind[0]})\n  present_{kind} = Cast <to = 1> (kept_{kind})\n", 1
        )
    return text.replace("(q, present_key, present_value)", f"(q, {read}_key, {read}_value)")


def test_sixteen_bits_between_casts() -> None:
    made = model(halves("kept"))
    step = held(made.graph, "past_key", "present_key", np.full((2, 4), 0.1, np.float32))
    assert step[0, 0] == np.float32(np.float16(0.1))
    changed, fed, sizes = narrowed(made, draw(made, DIMS, below=9))
    assert [value.name for value in changed.graph.outputs] == ["y", *sizes]
    assert "Cast" not in ops(changed)
    assert run(changed, fed)["present_key"].dtype == np.int8


@pytest.mark.parametrize("small", [0.0, 1e-9, 2e-6, 1.5e-5])
def test_small_steps_of_sixteen_bits_have_factors(small: float) -> None:
    made = model(halves("kept"))
    wanted = np.full((HEADS, WIDTH), small, np.float32)
    wanted[0, 0] = 1.0
    step = held(made.graph, "past_key", "present_key", wanted)
    assert step[0, 0] == 1.0
    changed = QuantizeCache(tensors={"past_key": Kept("present_key", step)})(made).model
    factors = [value for name, value in changed.graph.initializers.items() if "factors" in name]
    assert len(factors) == 2
    for each in factors:
        assert each.const_value is not None
        array = each.const_value.numpy()
        assert np.isfinite(array).all()
        assert (array > 0).all()


def test_attention_that_reads_the_cast_which_is_kept() -> None:
    text = halves("present").replace("float16[b,4,s,4]", "float[b,4,s,4]")
    changed, fed, sizes = narrowed(model(text), feed := draw(model(text), DIMS, below=9))
    assert {name: run(changed, fed)[name].dtype for name in sizes} == dict.fromkeys(sizes, np.int8)
    near = run(model(text), feed)["y"]
    np.testing.assert_allclose(run(changed, fed)["y"], near, atol=0.05 * np.abs(near).max())
