"""A switched model gives, mixture by mixture, what the Q/DQ graph of that mixture gives."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.passes import check
from llmdeploy.passes.quantize import Int8, Quantize
from llmdeploy.passes.sites import find
from llmdeploy.passes.switch import PREFIX, Switch

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[rows,16] x) => (float[rows,16] y)
{ a = MatMul(x, w) l = Add(a, c) f = Gelu(l) y = Gemm <transB = 1> (f, u, d) }
"""


def model(kind: str = "float") -> ir.Model:
    text = TEXT.replace("float", kind)
    proto, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in {"w": (16, 32), "c": (32,), "u": (16, 32), "d": (16,)}.items():
        array = random.normal(size=shape).astype("f2" if kind == "float16" else "f4")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def layers(made: ir.Model) -> dict[str, Int8]:
    found: dict[str, Int8] = {}
    for layer in (layer for site in find(made) for layer in site.layers):
        weight = made.graph.initializers[layer.weight].const_value.numpy().astype("f4")
        axis = 1 if layer.transposed else 0
        steps = np.abs(weight).max(axis=axis).astype("f4") / np.float32(127)
        levels = np.rint(weight / np.expand_dims(steps, axis)).astype(np.int8)
        offset = np.linspace(-1, 1, layer.n, dtype="f4")
        found[layer.node] = Int8(0.05, ir.tensor(levels), steps, offset)
    return found


@pytest.mark.parametrize(("kind", "tolerance"), [("float", 1e-5), ("float16", 0.1)])
@pytest.mark.parametrize("mixture", list(itertools.product([False, True], repeat=2)))
def test_every_mixture(mixture: tuple[bool, bool], kind: str, tolerance: float, execute):
    x = np.random.default_rng(1).normal(size=(5, 16))
    feed = {"x": x.astype("f2" if kind == "float16" else "f4")}
    switched, fixed = model(kind), model(kind)
    chosen = layers(fixed)
    Switch(layers=layers(switched))(switched)
    check(switched)
    switches = {f"{PREFIX}{name}": np.array(on) for name, on in zip(chosen, mixture, strict=True)}
    int8 = {name: each for (name, each), on in zip(chosen.items(), mixture, strict=True) if on}
    Quantize(layers=int8)(fixed)
    one, two = execute(switched, {**feed, **switches})["y"], execute(fixed, feed)["y"]
    np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)
