"""Weights in few bits: where DequantizeLinear stands, and that the graph computes with them."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import check
from llmdeploy.passes.check import Facts
from llmdeploy.passes.opset import lift
from llmdeploy.passes.sites import find
from llmdeploy.passes.weight_only import Blocks, WeightOnly, matrix, stored

TEXT = """
<ir_version: 9, opset_import: ["" : 20]>
agraph (float[rows,64] x) => (float[rows,32] y)
{
  a = MatMul(x, w)
  f = Relu(a)
  y = Gemm <transB = 1> (f, u, d)
}
"""
SHAPES = {"w": (64, 96), "u": (32, 96), "d": (32,)}
# Float32 sums of a hundred products, of outputs up to a hundred, in another order.
TOLERANCE = {"rtol": 0.0, "atol": 2e-4}


def model(text: str = TEXT) -> ir.Model:
    proto, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in SHAPES.items():
        array = random.normal(size=shape).astype("f4")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def blocks(weight: np.ndarray, layer, bits: int, block: int) -> tuple[Blocks, np.ndarray]:
    """Levels and steps of a weight [k, n], and the weight that they stand for."""
    top, rows = (1 << (bits - 1)) - 1, weight.reshape(-1, block or len(weight), weight.shape[1])
    steps = (np.abs(rows).max(axis=1) / top).astype(np.float32)
    levels = np.rint(rows / steps[:, None]).astype(np.int8).reshape(weight.shape)
    kind = ir.DataType.INT4 if bits == 4 else ir.DataType.INT8
    tensor = ir.tensor(stored(layer, levels), dtype=kind)
    return Blocks(tensor, steps, block), (levels * np.repeat(steps, block or len(weight), axis=0))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [0, 32])
def test_dequantised_weights_feed_the_products(execute, bits: int, block: int):
    made = model()
    facts, sites = Facts.of(made), find(made)
    found, weights = {}, {}
    for layer in (each for site in sites for each in site.layers):
        weight = matrix(next(n for n in made.graph if n.name == layer.node))
        found[layer.node], weights[layer.weight] = blocks(weight, layer, bits, block)
    bias = made.graph.initializers["d"].const_value.numpy()
    WeightOnly(layers=found)(made)
    check(made, facts)
    readers = [node for node in made.graph if node.op_type in ("MatMul", "Gemm")]
    assert [n.inputs[1].producer().op_type for n in readers] == ["DequantizeLinear"] * 2
    assert made.opset_imports[""] == 21
    kinds = {v.dtype.name for v in made.graph.initializers.values()}
    assert kinds == {f"INT{bits}", "FLOAT"}
    x = np.random.default_rng(1).normal(size=(5, 64)).astype("f4")
    wanted = np.maximum(x @ weights["w"], 0) @ weights["u"] + bias
    np.testing.assert_allclose(execute(made, {"x": x})["y"], wanted, **TOLERANCE)


def test_a_weight_that_two_layers_share_is_there_once(execute):
    text = TEXT.replace("y = Gemm <transB = 1> (f, u, d)", "b = MatMul(x, w)\n  s = Add(f, b)\n"
                        "  g = Relu(s)\n  y = Gemm <transB = 1> (g, u, d)")  # fmt: skip
    made = model(text)
    layers = [layer for site in find(made) for layer in site.layers if layer.weight == "w"]
    assert len(layers) == 2
    shared, _ = blocks(made.graph.initializers["w"].const_value.numpy(), layers[0], 4, 32)
    WeightOnly(layers={layer.node: shared for layer in layers})(made)
    check(made)
    assert sum(node.op_type == "DequantizeLinear" for node in made.graph) == 1
    assert execute(made, {"x": np.ones((1, 64), "f4")})["y"].shape == (1, 32)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(PassError, match="no weight MatMul called 'gone'"):
        WeightOnly(layers={"gone": None})(model())


def test_a_step_of_zero_is_refused():
    made = model()
    layer = next(layer for site in find(made) for layer in site.layers if layer.weight == "w")
    given, _ = blocks(made.graph.initializers["w"].const_value.numpy(), layer, 4, 32)
    bad = Blocks(given.levels, np.zeros_like(given.steps), 32)
    with pytest.raises(PassError, match="not positive"):
        WeightOnly(layers={layer.node: bad})(made)


@pytest.mark.parametrize(
    ("opset", "node", "op"),
    [
        (20, "n = GroupNormalization <num_groups = 2> (x, g, g)", "GroupNormalization"),
        (12, "n = Softmax(x)", "Softmax"),
        (17, "n = ReduceMean <axes = [0]> (x)", "ReduceMean"),
        (17, "n, m = Split(x)", "Split"),
        (9, "n = Upsample(x, g)", "Upsample"),
    ],
)
def test_an_operator_that_opset_21_changed_is_not_lifted(opset: int, node: str, op: str, graph):
    made = graph(
        f"""<ir_version: 9, opset_import: ["" : {opset}]>
        g (float[2,64] x) => (float[2,64] n) <float[2] g = {{1, 1}}> {{ {node} }}"""
    )
    with pytest.raises(PassError, match=rf"{op} is not the same in opset 21.*--opset 21"):
        lift(made)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_an_operator_that_has_other_names_for_the_same_is(mode: str, graph, execute, feeds):
    made = graph(
        f"""<ir_version: 9, opset_import: ["" : 18]>
        g (float[1,1,4,4] x, float[1,3,3,2] at) => (float[1,1,3,3] y)
        {{ y = GridSample <mode = "{mode}"> (x, at) }}"""
    )
    feed = feeds(made, {}, 1)
    before = execute(made, feed)["y"]
    lift(made)
    np.testing.assert_array_equal(execute(made, feed)["y"], before)


@pytest.mark.parametrize("block", [0, 32])
def test_zero_points_stand_beside_the_steps(execute, block: int):
    made, found, weights = model(), {}, {}
    for site in find(made):
        (layer,) = site.layers
        weight = matrix(next(node for node in made.graph if node.name == layer.node))
        one, wide = blocks(weight, layer, 4, block)
        shape, random = one.steps.shape, np.random.default_rng(5)
        zeros = random.integers(-3, 4, shape).astype(np.int8)
        found[layer.node] = Blocks(one.levels, one.steps, block, zeros)
        moved = np.repeat(zeros * one.steps, block or len(weight), axis=0)
        weights[layer.node] = wide - moved
    wanted = model()
    find(wanted)  # gives the nodes their names
    for node in wanted.graph:
        if node.name in weights:
            turned = weights[node.name].T if node.op_type == "Gemm" else weights[node.name]
            node.inputs[1].const_value = ir.tensor(np.ascontiguousarray(turned, np.float32))
    made = WeightOnly(layers=found)(made).model
    x = {"x": np.random.default_rng(1).normal(size=(5, 64)).astype("f4")}
    np.testing.assert_allclose(execute(made, x)["y"], execute(wanted, x)["y"], **TOLERANCE)
