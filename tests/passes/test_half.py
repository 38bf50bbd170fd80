"""Casting to 16 bits: what is cast, what is kept and why, and what the numbers say."""

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import PassManager
from llmdeploy.passes.half import Half
from onnx.reference import ReferenceEvaluator
from pydantic import ValidationError

# A layer that spells out its norm, with a mask and a pooled output.
TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
layer (float[b,s,4] x, bool[b,1,s] mask) => (float[b,s,4] y, float[b,4] pooled)
<float[4,4] w = {0.1, 0.9, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8, -0.1, -0.2, -0.3, -0.4, 0.0, 0.1, 0.0, -0.1},
 float[4] scale = {1.0, 1.5, 1.0, 0.5}, float low = {-3.4e38}, float zero = {0.0}, float two = {2.0},
 float epsilon = {0.000001}, float[1] least = {0.000000001}, int64[1] last = {-1}, int64[1] middle = {1}>
{
    q = MatMul (x, w)
    kt = Transpose <perm = [0, 2, 1]> (x)
    scores = MatMul (q, kt)
    bias = Where (mask, zero, low)
    masked = Add (scores, bias)
    p = Softmax <axis = -1> (masked)
    mixed = MatMul (p, x)
    square = Pow (mixed, two)
    mean = ReduceMean (square, last)
    shifted = Add (mean, epsilon)
    root = Sqrt (shifted)
    normed = Div (mixed, root)
    y = Mul (normed, scale)
    total = ReduceSum <keepdims = 0> (y, middle)
    kept = Cast <to = 1> (mask)
    count = ReduceSum <keepdims = 0> (kept, last)
    some = Max (count, least)
    pooled = Div (total, some)
}
"""


def halved(graph, **options):
    model = graph(TEXT)
    made, (step,) = PassManager([Half(**options)]).run(model)
    return made, step


def types(model):
    return {
        value.name: value.dtype for node in model.graph for value in node.outputs if value.dtype
    }


@pytest.mark.parametrize("to", ["float16", "bfloat16"])
def test_products_are_cast_and_sums_of_squares_kept(graph, to):
    model, step = halved(graph, to=to)
    found, kind = types(model), ir.DataType[to.upper()]
    assert {found[name] for name in ("q", "scores", "masked", "p", "mixed")} == {kind}
    assert {found[name] for name in ("square", "mean", "shifted", "root")} == {ir.DataType.FLOAT}
    assert step.applications["kept: ReduceMean loses too much"] == 1
    assert model.graph.initializers["w_float16" if to == "float16" else "w_bfloat16"].dtype == kind


def test_inputs_and_outputs_keep_their_types(graph):
    model, _ = halved(graph)
    values = (*model.graph.inputs, *model.graph.outputs)
    assert [value.dtype.name for value in values] == ["FLOAT", "BOOL", "FLOAT", "FLOAT"]
    assert [value.name for value in model.graph.outputs] == ["y", "pooled"]


def test_a_mask_becomes_the_types_own_extreme(graph):
    model, _ = halved(graph)
    assert model.graph.initializers["low_float16"].const_value.numpy() == -65504


def test_what_would_vanish_is_kept_and_so_is_its_quotient(graph):
    _, step = halved(graph)
    assert step.applications["kept: least of 1e-09 would be 0"] == 1
    assert step.applications["kept: it divides by what stays wide"] >= 1


def test_a_value_beyond_the_range_is_kept(graph):
    model, step = halved(graph, ranges={"scores": 1e6})
    assert types(model)["scores"] == ir.DataType.FLOAT
    assert step.applications["kept: it reaches 1e+06"] == 1
    assert types(halved(graph, to="bfloat16", ranges={"scores": 1e6})[0])["scores"] == (
        ir.DataType.BFLOAT16
    )


def test_a_weight_beyond_the_range_is_kept(graph):
    model = graph(TEXT)
    weight = model.graph.initializers["w"]
    array = weight.const_value.numpy().copy()
    array[0, 0] = 1e5
    weight.const_value = ir.tensor(array, name="w")
    _, (step,) = PassManager([Half()]).run(model)
    assert step.applications["kept: weight w is beyond the range"] == 1


def test_a_divisor_beyond_the_range_is_kept(graph, execute):
    text = """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}, float most = {1000000}>
        {
            a = MatMul (x, w)
            b = Div (a, most)
            y = MatMul (b, w)
        }"""
    model, (step,) = PassManager([Half()]).run(graph(text))
    assert step.applications["kept: weight most is beyond the range"] == 1
    feed = {"x": np.array([[1e3, 2e3], [3e3, 4e3]], np.float32)}
    wanted = execute(graph(text), feed)["y"]
    np.testing.assert_allclose(execute(model, feed)["y"], wanted, rtol=1e-2)


def test_a_factor_beyond_the_range_is_kept_where_its_product_is_within(graph, execute):
    text = """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}, float most = {1000000}>
        {
            a = MatMul (x, w)
            b = Mul (a, most)
            y = MatMul (b, w)
        }"""
    half = Half(ranges={"a": 0.001, "b": 1000, "y": 10000})
    model, (step,) = PassManager([half]).run(graph(text))
    assert step.applications["kept: weight most is beyond the range"] == 1
    feed = {"x": np.array([[1e-4, 2e-4], [1e-4, 1e-4]], np.float32)}
    wanted = execute(graph(text), feed)["y"]
    np.testing.assert_allclose(execute(model, feed)["y"], wanted, rtol=1e-2)


@pytest.mark.parametrize("factor", ["7e-8", "1e-7", "1e-6"])
def test_a_factor_of_few_bits_is_kept(factor, graph, execute):
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {{1, 2, 3, 4}}, float least = {{{factor}}}>
        {{
            a = MatMul (x, w)
            b = Mul (a, least)
            y = MatMul (b, w)
        }}"""
    model, (step,) = PassManager([Half()]).run(graph(text))
    assert step.applications[f"kept: least of {float(factor):.3g} would be of few bits"] == 1
    feed = {"x": np.array([[1e3, 2e3], [3e3, 4e3]], np.float32)}
    wanted = execute(graph(text), feed)["y"]
    np.testing.assert_allclose(execute(model, feed)["y"], wanted, rtol=4e-3)
    assert types(PassManager([Half(to="bfloat16")]).run(graph(text))[0])["b"] == (
        ir.DataType.BFLOAT16
    )


def test_a_named_node_is_kept(graph):
    model, step = halved(graph, keep=("q",))
    assert types(model)["q"] == ir.DataType.FLOAT
    assert step.applications["kept: it is to be kept"] == 1


def test_a_value_is_cast_once_for_all_that_read_it(graph):
    model, _ = halved(graph)
    casts = [node for node in model.graph if node.op_type == "Cast"]
    assert len({(node.inputs[0].name, node.outputs[0].dtype) for node in casts}) == len(casts)


def reference(feed):
    """ONNX's reference rounds after every operator; ONNX Runtime's CPU computes in float32."""

    def outputs(model):
        session = ReferenceEvaluator(ir.to_proto(model))
        with np.errstate(all="ignore"):
            return dict(zip(session.output_names, session.run(None, feed), strict=True))

    return outputs


@pytest.mark.parametrize("by", ["onnxruntime", "reference"])
def test_the_numbers_stay_close(graph, execute, by):
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    feed = {"x": x, "mask": np.array([[[True, True, False]], [[True, False, False]]])}
    verify = reference(feed) if by == "reference" else lambda model: execute(model, feed)
    _, (step,) = PassManager([Half()], verify).run(graph(TEXT))
    assert 0 < step.max_error < 0.01


def test_an_overflow_is_found(graph):
    x = np.random.default_rng(0).standard_normal((1, 2, 4)).astype(np.float32) * np.float32(3e4)
    verify = reference({"x": x, "mask": np.ones((1, 1, 2), bool)})
    with pytest.raises(PassError, match=r"pass half failed.*tensor scores"):
        PassManager([Half()], verify).run(graph(TEXT))
    ranges = {name: 1e9 for name in ("q", "scores", "masked", "mixed")}
    PassManager([Half(ranges=ranges)], verify).run(graph(TEXT))


def test_a_model_without_floats_is_left(graph):
    model = graph("""
        <ir_version: 10, opset_import: ["" : 20]>
        ints (int64[2] x) => (int64[2] y) { y = Neg (x) }""")
    _, (step,) = PassManager([Half()]).run(model)
    assert not step.modified


def test_options_are_checked():
    with pytest.raises(ValidationError):
        Half(to="float8")


def test_bodies_read_what_they_read_before(graph, execute):
    model = graph("""
        <ir_version: 10, opset_import: ["" : 20]>
        chosen (bool c, float[2,2] x) => (float[2,2] y)
        <float[2,2] w = {0.5, 1.0, 1.5, 2.0}>
        {
            m = MatMul (x, w)
            y = If (c) <then_branch = yes () => (float[2,2] p) { p = Neg (m) },
                        else_branch = no () => (float[2,2] q) { q = Add (m, w) }>
        }""")
    before = model.clone()
    made, (step,) = PassManager([Half()]).run(model)
    assert step.applications["cast"] == 1
    x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    for condition in (True, False):
        feed = {"c": np.array(condition), "x": x}
        np.testing.assert_allclose(execute(made, feed)["y"], execute(before, feed)["y"], atol=0.01)


def test_names_that_are_taken_are_not_given_again(graph):
    made, _ = PassManager([Half()]).run(graph(TEXT.replace("square", "x_float16")))
    names = [value.name for node in made.graph for value in node.outputs]
    assert len(set(names)) == len(names)


def test_what_is_in_16_bits_already_is_left(graph, execute):
    model = graph("""
        <ir_version: 10, opset_import: ["" : 20]>
        mixed (float[2,2] x, float16[2,2] h) => (float[2,2] y, float16[2,2] g)
        <float[2,2] w = {0.5, 1.0, 1.5, 2.0}>
        {
            y = MatMul (x, w)
            g = Exp (h)
        }""")
    made, _ = PassManager([Half()]).run(model)
    (exponential,) = [node for node in made.graph if node.op_type == "Exp"]
    assert exponential.inputs[0].name == "h"


@pytest.mark.parametrize("to", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "node",
    [
        "c = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()",
        "c = EyeLike <dtype = 1> (x)",
        "c = RandomUniformLike <dtype = 1, seed = 1.0> (x)",
        "n, c = LayerNormalization (x, w)",
        "o = Optional (d) c = OptionalGetElement (o)",
    ],
)
def test_what_has_its_type_from_no_input_is_kept(node: str, to: str, graph):
    model = graph(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[4,4] x) => (float[4,4] y) <float[4] w = {{1, 1, 1, 1}}>
        {{ d = Add (x, x) {node} a = Mul (d, c) y = Add (a, a) }}"""
    )
    made, _ = PassManager([Half(to=to)]).run(model)
    assert types(made)["c"] == ir.DataType.FLOAT
    assert types(made)["a"] == ir.DataType[to.upper()]
