"""Channels apart: the float numbers stay, and the weight that is left has zeros there."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import check
from llmdeploy.passes.check import Facts
from llmdeploy.passes.outliers import Outliers
from llmdeploy.passes.sites import find, weight_of

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
GRAPHS = {
    "biased": """agraph (float[b,s,16] x) => (float[b,s,32] y, float[b,s,32] z)
    { m = MatMul(x, w) y = Add(m, c) z = MatMul(x, v) }""",
    "flat": """agraph (float[r,16] x) => (float[r,32] y)
    { y = Gemm <transB = 1> (x, u, c) }""",
    "inside": """agraph (float[b,s,16] x) => (float[b,s,32] y)
    { m = MatMul(x, w) n = Add(m, c) y = Relu(n) }""",
}
SHAPES = {"w": (16, 32), "v": (16, 32), "u": (32, 16), "c": (32,)}


def model(name: str) -> ir.Model:
    proto, random = onnx.parser.parse_model(HEAD + GRAPHS[name]), np.random.default_rng(0)
    read = {value for node in proto.graph.node for value in node.input}
    for weight in sorted(read & SHAPES.keys()):
        array = random.normal(size=SHAPES[weight]).astype("f4")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("channels", [(3,), (0, 7, 15)])
def test_the_numbers_stay(name: str, channels: tuple[int, ...], execute, feeds, count):
    made = model(name)
    feed = feeds(made, {"b": 2, "s": 3, "r": 6}, 4)
    before, facts = execute(model(name), feed), Facts.of(made)
    layers = [layer for site in find(made) for layer in site.layers]
    Outliers(channels={layer.node: channels for layer in reversed(layers)})(made)
    check(made, facts)
    for key, array in execute(made, feed).items():
        np.testing.assert_allclose(array, before[key], rtol=0, atol=1e-5)
    assert count(made)["Gather"] == 1, "layers that share their input share the picked channels"
    for site in find(made):
        for layer in site.eligible:
            weight = weight_of(made, layer)
            assert not weight[list(channels)].any()
            assert np.delete(weight, channels, axis=0).any(axis=1).all()


def test_each_layer_may_have_channels_of_its_own(execute, feeds):
    made = model("biased")
    feed = feeds(made, {"b": 2, "s": 3}, 4)
    before = execute(made, feed)
    (site,) = find(made)
    Outliers(channels={layer.node: (at,) for at, layer in enumerate(site.layers)})(made)
    check(made)
    for key, array in execute(made, feed).items():
        np.testing.assert_allclose(array, before[key], rtol=0, atol=1e-5)


def test_what_is_not_there_is_an_error():
    made = model("inside")
    (site,) = find(made)
    with pytest.raises(PassError, match="no layer 'nope'"):
        Outliers(channels={"nope": (1,)})(made)
    with pytest.raises(PassError, match=r"channels \(16,\)"):
        Outliers(channels={site.layers[0].node: (16,)})(made)
