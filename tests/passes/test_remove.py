"""Units are followed by dataflow, and what is left computes what the whole did without them."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import check
from llmdeploy.passes.coupling import Group, groups
from llmdeploy.passes.infer import infer
from llmdeploy.passes.refit import Refit, Refitted
from llmdeploy.passes.remove import Remove, droppable
from llmdeploy.passes.sites import by_name, layer_of, weight_of
from onnx.reference import ReferenceEvaluator

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
GATED = """
agraph (float[b,s,16] x) => (float[b,s,16] y)
{
  g = MatMul(x, gate)
  q = Sigmoid(g)
  a = Mul(g, q)
  u = MatMul(x, up)
  m = Mul(a, u)
  d = MatMul(m, down)
  z = Add(d, bias)
  y = Add(x, z)
}
"""
HEADS = """
agraph (float[b,s,16] x, float[b,2,p,4] past) => (float[b,s,16] y, float[b,2,t,4] present)
{
  q = MatMul(x, wq)
  q4 = Reshape(q, split4)
  qt = Transpose <perm = [0, 2, 1, 3]> (q4)
  k = MatMul(x, wk)
  k4 = Reshape(k, split2)
  kt = Transpose <perm = [0, 2, 1, 3]> (k4)
  present = Concat <axis = 2> (past, kt)
  five = Unsqueeze(present, two)
  wide = Expand(five, repeats)
  same = Reshape(wide, merged)
  turned = Transpose <perm = [0, 1, 3, 2]> (same)
  scores = MatMul(qt, turned)
  p = Softmax(scores)
  o = MatMul(p, same)
  ot = Transpose <perm = [0, 2, 1, 3]> (o)
  flat = Reshape(ot, joined)
  out = MatMul(flat, wo)
  y = Add(x, out)
}
"""
FUSED = """
agraph (float[b,s,16] x) => (float[b,s,16] y)
{
  qkv = MatMul(x, wqkv)
  whole = Add(qkv, bqkv)
  q, k, v = Split <axis = -1, num_outputs = 3> (whole)
  q4 = Reshape(q, splitf)
  k4 = Reshape(k, splitf)
  v4 = Reshape(v, splitf)
  qt = Transpose <perm = [0, 2, 1, 3]> (q4)
  kt = Transpose <perm = [0, 2, 3, 1]> (k4)
  vt = Transpose <perm = [0, 2, 1, 3]> (v4)
  scores = MatMul(qt, kt)
  p = Softmax(scores)
  o = MatMul(p, vt)
  ot = Transpose <perm = [0, 2, 1, 3]> (o)
  flat = Reshape(ot, joined)
  y = MatMul(flat, wo)
}
"""
COMPUTED = """
agraph (float[b,s,16] x) => (float[b,s,16] y)
{
  rows = Reshape(x, flat16)
  h = MatMul(rows, up)
  lead = Shape <start = 0, end = 2> (x)
  shape = Concat <axis = 0> (lead, n24)
  whole = Reshape(h, shape)
  r = Relu(whole)
  y = MatMul(r, down)
}
"""
CHAIN = """
agraph (float[b,s,16] x) => (float[b,s,16] y)
{
  h = MatMul(x, up)
  r = Relu(h)
  h2 = MatMul(r, square)
  r2 = Relu(h2)
  y = MatMul(r2, down)
}
"""
ONE_BIAS = """
agraph (float[b,16] x) => (float[b,16] y)
{
  h = Gemm(x, wq, bias)
  r = Relu(h)
  y = Gemm(r, wo, bias)
}
"""
MERGED = """
agraph (float[b,16] x) => (float[b,16] y)
{
  h = MatMul(x, wq)
  apart = Reshape(h, fours)
  rows = Reshape(apart, flat4)
  scaled = Mul(rows, gain4)
  again = Reshape(scaled, fours)
  flat = Reshape(again, flat16)
  y = MatMul(flat, wo)
}
"""
PARALLEL = """
agraph (float[b,s,16] x) => (float[b,s,16] y)
{
  g = MatMul(x, gate)
  q = Relu(g)
  c = MatMul(q, also)
  a = Add(c, bias)
  u = MatMul(x, up)
  r = Relu(u)
  d = MatMul(r, down)
  e = Add(d, bias)
  both = Add(a, e)
  y = Add(both, x)
}
"""
NORMED = """
agraph (float[b,s,16] x) => (float[b,s,16] y)
{
  h = MatMul(x, up)
  n = LayerNormalization(h, gain)
  y = MatMul(n, down)
}
"""
SHARED = """
agraph (float[b,s,16] x) => (float[b,s,16] y)
{
  h = MatMul(x, up)
  r = Relu(h)
  a = MatMul(r, down)
  i = MatMul(a, up)
  t = Relu(i)
  y = MatMul(t, down)
}
"""
SHAPES: dict[str, tuple[int, ...]] = {
    "gate": (16, 24),
    "up": (16, 24),
    "down": (24, 16),
    "also": (24, 16),
    "bias": (16,),
    "gain": (24,),
    "gain4": (4,),
    "square": (24, 24),
    "side": (24, 8),
    "other": (8, 24),
    "wq": (16, 16),
    "wk": (16, 8),
    "wo": (16, 16),
    "wqkv": (16, 48),
    "bqkv": (48,),
}
NUMBERS = {
    "split4": [0, 0, 4, 4],
    "split2": [0, 0, 2, 4],
    "splitf": [0, 0, 2, 8],
    "two": [2],
    "repeats": [1, 2, 2, 1, 4],
    "merged": [0, 4, -1, 4],
    "joined": [0, 0, 16],
    "flat16": [-1, 16],
    "flat4": [-1, 4],
    "fours": [-1, 4, 4],
    "n24": [24],
}


def model(text: str) -> ir.Model:
    proto, random = onnx.parser.parse_model(HEAD + text), np.random.default_rng(0)
    used = {name for node in proto.graph.node for name in node.input}
    for name in sorted(used & SHAPES.keys()):
        array = random.normal(size=SHAPES[name]).astype("f4") / 4
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for name in sorted(used & NUMBERS.keys()):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(NUMBERS[name]), name))
    made = ir.from_proto(proto)
    by_name(made)
    infer(made)
    return made


def run(made: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    found = ReferenceEvaluator(ir.to_proto(made)).run(None, feeds)
    return [np.asarray(each) for each in found]


def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 5, 16)).astype("f4")


def without(text: str, group: Group, kept: tuple[int, ...]) -> ir.Model:
    """The whole model, whose reader has zeros where units go."""
    made = model(text)
    weight = weight_of(made, layer_of(by_name(made)[group.consumer])).copy()
    weight[~np.isin(group.labels, kept)] = 0
    return Refit({group.consumer: Refitted(weight)})(made).model


def removed(text: str, kept: tuple[int, ...]) -> tuple[ir.Model, Group]:
    made = model(text)
    (group,) = groups(made)[0]
    Remove({group.consumer: kept})(made)
    infer(made)
    check(made, where="removed")
    return made, group


def test_neurons_of_a_gated_layer() -> None:
    kept = (0, 3, 4, 11, 23)
    made, group = removed(GATED, kept)
    assert (group.kind, group.units, len(group.producers)) == ("neurons", 24, 2)
    shapes = {tuple(value.shape or ()) for value in made.graph.initializers.values()}
    assert shapes == {(16, 5), (5, 16), (16,)}
    wanted = run(without(GATED, group, kept), x=x())
    np.testing.assert_allclose(run(made, x=x())[0], wanted[0], atol=1e-6)


def test_a_group_of_heads_goes_with_its_keys_and_its_cache() -> None:
    made, group = removed(HEADS, (1,))
    assert (group.kind, group.units, group.width) == ("heads", 2, 16)
    assert set(group.interface) == {"past", "present"}
    past = np.random.default_rng(2).normal(size=(2, 2, 3, 4)).astype("f4")
    whole = run(without(HEADS, group, (1,)), x=x(), past=past)
    small = run(made, x=x(), past=past[:, 1:])
    assert made.graph.inputs[1].shape == ir.Shape(["b", 1, "p", 4])
    np.testing.assert_allclose(small[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(small[1], whole[1][:, 1:], atol=1e-6)


def test_heads_of_one_weight_for_queries_keys_and_values() -> None:
    kept = (1,)
    made, group = removed(FUSED, kept)
    assert (group.kind, group.units) == ("heads", 2)
    wanted = run(without(FUSED, group, kept), x=x())
    np.testing.assert_allclose(run(made, x=x())[0], wanted[0], atol=1e-6)


def test_a_shape_that_is_computed() -> None:
    made, group = removed(COMPUTED, (1, 2, 20))
    wanted = run(without(COMPUTED, group, (1, 2, 20)), x=x())
    np.testing.assert_allclose(run(made, x=x())[0], wanted[0], atol=1e-6)


def test_a_weight_that_two_groups_share_loses_rows_and_columns() -> None:
    """As in heads of three layers: what the first leaves is what the second cuts."""
    made, zeros = model(CHAIN), model(CHAIN)
    plan = {group.consumer: tuple(range(0, 24, 3)) for group in groups(made)[0]}
    assert len(plan) == 2
    for name, kept in plan.items():
        weight = weight_of(zeros, layer_of(by_name(zeros)[name])).copy()
        weight[~np.isin(np.arange(24), kept)] = 0
        Refit({name: Refitted(weight)})(zeros)
    Remove(plan)(made)
    infer(made)
    check(made, where="removed")
    shapes = {tuple(value.shape or ()) for value in made.graph.initializers.values()}
    assert shapes == {(16, 8), (8, 8), (8, 16)}
    np.testing.assert_allclose(run(made, x=x())[0], run(zeros, x=x())[0], atol=1e-5)


def test_a_bias_that_the_reader_has_too_stays_whole_there() -> None:
    """Equal biases of an export, as those of zeros, are one constant."""
    made, group = removed(ONE_BIAS, (0, 5, 6))
    wanted = run(without(ONE_BIAS, group, (0, 5, 6)), x=x()[0])
    np.testing.assert_allclose(run(made, x=x()[0])[0], wanted[0], atol=1e-6)


def test_rows_that_a_gemm_adds_are_its_rows() -> None:
    text = """agraph (float[24,16] x) => (float[16,24] y)
    { h = MatMul(x, up) t = Transpose(h) g = Gemm(side, other, t) u = Transpose(g)
      z = MatMul(u, down) y = Transpose(z) }"""
    rows = np.random.default_rng(1).normal(size=(24, 16)).astype("f4")
    made, group = removed(text, (0, 2, 3))
    assert (group.units, group.interface) == (24, ())
    wanted = run(without(text, group, (0, 2, 3)), x=rows)
    np.testing.assert_allclose(run(made, x=rows)[0], wanted[0], atol=1e-5)


def test_a_shape_that_is_computed_is_set_twice() -> None:
    made, group = removed(COMPUTED, tuple(range(12)))
    Remove({group.consumer: (1, 2, 10)})(made)
    infer(made)
    check(made, where="removed")
    names = [node.name for node in made.graph]
    assert len(names) == len(set(names))
    wanted = run(without(COMPUTED, group, (1, 2, 10)), x=x())
    np.testing.assert_allclose(run(made, x=x())[0], wanted[0], atol=1e-6)


def test_a_block_goes_whole_and_leaves_its_bias() -> None:
    made, group = removed(GATED, ())
    assert droppable(model(GATED), group)
    assert [node.op_type for node in made.graph] == ["Add"]
    wanted = run(without(GATED, group, ()), x=x())
    np.testing.assert_allclose(run(made, x=x())[0], wanted[0], atol=1e-6)


def test_blocks_beside_each_other_go_and_leave_their_biases() -> None:
    made = model(PARALLEL)
    plan = dict.fromkeys((group.consumer for group in groups(made)[0]), ())
    assert len(plan) == 2
    Remove(plan)(made)
    infer(made)
    check(made, where="removed")
    assert [node.op_type for node in made.graph] == ["Add"]
    bias = model(PARALLEL).graph.initializers["bias"].const_value
    assert bias is not None
    np.testing.assert_allclose(run(made, x=x())[0], x() + 2 * bias.numpy(), atol=1e-6)


def test_a_weight_that_is_read_turned_is_left_alone() -> None:
    """As an export has it before constants are folded, and as an embedding's head has it."""
    made = model(
        """agraph (float[b,s,16] x) => (float[b,s,16] y)
        { h = MatMul(x, up)
          a = Relu(h)
          w = Transpose <perm = [1, 0]> (up)
          y = MatMul(a, w) }"""
    )
    turned = next(node for node in made.graph if node.outputs[0].name == "y")
    found, left = groups(made)
    assert turned.name not in {each.consumer for each in found}
    assert "`fold` was not run" in {each.consumer: each.reason for each in left}[turned.name or ""]


def test_what_cannot_be_followed_is_named_and_left_alone() -> None:
    found, left = groups(model(NORMED))
    assert not found
    assert any("LayerNormalization" in each.reason for each in left)
    found, left = groups(model(MERGED))  # four heads of four: a row's axis is not that of heads
    assert not found
    assert any("cannot be told" in each.reason for each in left)
    found, left = groups(model(SHARED))
    assert not found
    assert any("shared by 2 nodes" in each.reason for each in left)


def test_features_of_the_model_itself_are_no_units() -> None:
    """What goes in and comes out by a residual is no cache."""
    found, left = groups(
        model(
            """agraph (float[b,s,16] x) => (float[b,s,16] y)
            { h = MatMul(x, up) r = Relu(h) d = MatMul(r, down) y = Add(x, d) }"""
        )
    )
    assert [(each.units, each.interface) for each in found] == [(24, ())]
    assert [each.reason for each in left] == ["x goes in or out of the model"]


def test_what_a_product_that_is_no_layer_reads_too_is_left_alone() -> None:
    """Its loss would be nobody's: plans are made by what the one layer sees."""
    found, left = groups(
        model(
            """agraph (float[b,16] x) => (float[b,16] y)
            { h = MatMul(x, up) r = Relu(h) half = Gemm <alpha = 0.5> (r, also)
              d = MatMul(r, down) y = Add(half, d) }"""
        )
    )
    assert not found
    assert any("its inputs are those of node_2 too" in each.reason for each in left), left


def test_a_layer_that_adds_what_is_computed_is_left_alone() -> None:
    """The samples' least squares would take it for a part of what the weight makes."""
    text = """agraph (float[b,16] x) => (float[b,16] z)
    { h = MatMul(x, up) r = Relu(h) y = Gemm(r, down, C) z = LayerNormalization(y, bias) }"""
    assert [each.units for each in groups(model(text.replace("C", "bias")))[0]] == [24]
    found, left = groups(model(text.replace("C", "x")))
    assert not found
    assert any("no constant bias" in each.reason for each in left)


@pytest.mark.parametrize(("opset", "followed"), [(12, False), (13, True)])
def test_softmax_over_all_axes_at_once_is_not_followed(opset: int, followed: bool) -> None:
    text = """agraph (float[2,3,16] x) => (float[2,3,16] y)
    { h = MatMul(x, up) s = Softmax <axis = 1> (h) y = MatMul(s, down) }"""
    made = model(text)
    made.graph.opset_imports[""] = opset
    found, left = groups(made)
    assert bool(found) == followed
    assert followed or any("Softmax" in each.reason for each in left)


@pytest.mark.parametrize("kept", [(24,), (-1,), (3, 1), (1, 1)])
def test_units_that_are_not_there(kept: tuple[int, ...]) -> None:
    with pytest.raises(PassError, match="units 0 to 23"):
        removed(GATED, kept)


def test_a_layer_that_is_not_there_and_a_block_that_must_stay() -> None:
    with pytest.raises(PassError, match="'nothing'"):
        Remove({"nothing": (0,)})(model(GATED))
    with pytest.raises(PassError, match="cannot lose all"):
        removed(FUSED, ())


def test_refitted_weights_and_biases() -> None:
    made = model(GATED)
    name = groups(made)[0][0].consumer
    Refit({name: Refitted(np.zeros((24, 16), "f4"), np.full(16, 2.0))})(made)
    bias = model(GATED).graph.initializers["bias"].const_value
    assert bias is not None
    np.testing.assert_allclose(run(made, x=x())[0], x() + bias.numpy() + 2, atol=1e-6)
    with pytest.raises(PassError, match=r"is \[24, 16\]"):
        Refit({name: Refitted(np.zeros((2, 16), "f4"))})(made)
