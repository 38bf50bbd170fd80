import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.deploy.ort_weights import WeightOnlyMatMul

from .graphs import evaluate, normal, ops, parse, quantized

# The kernel quantises activations to int8 by blocks: half a step of 1/127 a value, averaged out
# over the sum; of outputs whose largest is about 8.
TOLERANCE = {"rtol": 0.0, "atol": 0.12}


def graph(k: int, n: int, weight: str, scale: str, attributes: str, opset: int = 21) -> str:
    return f"""<ir_version: 10, opset_import: ["" : {opset}]>
      g (float[M,{k}] x, {weight}[{k},{n}] w, float[{scale}] s) => (float[M,{n}] y) {{
        d = DequantizeLinear<{attributes}>(w, s)
        y = MatMul(x, d)
      }}"""


def check(
    text: str,
    weight: ir.TensorProtocol,
    scale: np.ndarray,
    bits: int,
    k: int = 0,
    zeros: np.ndarray | None = None,
    **more,
) -> None:
    model = parse(text, {"s": scale, **more})
    given = {"w": weight}
    if zeros is not None:
        given["z"] = ir.tensor(zeros, dtype=weight.dtype, name="z")
    for value in [each for each in model.graph.inputs if each.name in given]:
        model.graph.inputs.remove(value)
        value.const_value = given[value.name]
        model.graph.register_initializer(value)
    x = {"x": normal(5, k or weight.shape.numpy()[0], seed=3)}
    before = evaluate(model, x)
    assert WeightOnlyMatMul()(model).modified
    assert ops(model) == ["MatMulNBits"]
    packed = next(t for name, t in model.graph.initializers.items() if name.endswith(".packed"))
    assert packed.const_value is not None
    assert packed.const_value.nbytes <= -(-weight.size * bits // 8 // 1) * 1.4
    np.testing.assert_allclose(evaluate(model, x)[0], before[0], **TOLERANCE)


def test_int8_with_a_scale_a_column() -> None:
    values, scale = quantized(normal(200, 48) / 14, axis=1)
    check(graph(200, 48, "int8", "48", "axis = 1"), ir.tensor(values, name="w"), scale, 8)


@pytest.mark.parametrize(("k", "block"), [(64, 32), (96, 32), (128, 64)])
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_along_k(k: int, block: int, bits: int) -> None:
    top = 7 if bits == 4 else 127
    weight = normal(k, 40) / 8
    blocks = weight.reshape(k // block, block, 40)
    scale = (np.abs(blocks).max(1) / top).astype(np.float32)
    values = np.rint(blocks / scale[:, None]).reshape(k, 40).astype(np.int8)
    kind = "int4" if bits == 4 else "int8"
    dtype = ir.DataType.INT4 if bits == 4 else ir.DataType.INT8
    tensor = ir.tensor(values, dtype=dtype, name="w")
    text = graph(k, 40, kind, f"{k // block},40", f"axis = 0, block_size = {block}")
    check(text, tensor, scale, bits)


@pytest.mark.parametrize(
    ("weight", "scale", "attributes"),
    [
        ("int8", "48,1", "axis = 1, block_size = 40"),
        ("uint8", "40", "axis = 1"),
        ("int8", "48", "axis = 0"),
    ],
)
def test_layouts_that_the_kernel_lacks_stay(weight: str, scale: str, attributes: str) -> None:
    shape = tuple(int(size) for size in scale.split(","))
    values = np.ones((48, 40), np.uint8 if weight == "uint8" else np.int8)
    text = graph(48, 40, weight, scale, attributes)
    model = parse(text, {"w": values, "s": np.ones(shape, np.float32)})
    assert not WeightOnlyMatMul()(model).modified


@pytest.mark.parametrize(
    "body",
    [
        "d = DequantizeLinear<axis = 1>(w, s)\n y = Gemm(x, d, b)",  # a bias for all columns
        "z = Cast<to = 3>(r)\n d = DequantizeLinear<axis = 1>(w, s, z)\n y = MatMul(x, d)",
    ],
)
def test_what_the_kernel_would_not_do_stays(body: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,48] x, int8[48,40] w, float[40] s, float[1] b, float[40] r) => (float[n,40] y) {{
        {body}
    }}"""
    weights = {"w": np.ones((48, 40), np.int8), "s": np.ones(40, np.float32)}
    model = parse(text, weights | {"b": np.ones(1, np.float32)})
    assert not WeightOnlyMatMul()(model).modified


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("block", [0, 32])
def test_gemm_with_its_bias(flipped: bool, block: int) -> None:
    weight, bias = normal(96, 40) / 8, normal(40, seed=5)
    rows = weight.reshape(-1, block or 96, 40)
    steps = (np.abs(rows).max(1) / 7).astype(np.float32)
    values = np.rint(rows / steps[:, None]).reshape(96, 40).astype(np.int8)
    steps = steps if block else steps[0]
    lie = (lambda array: np.ascontiguousarray(array.T)) if flipped else (lambda array: array)
    size = ",".join(map(str, lie(steps).shape))
    place = (
        f"axis = {int(flipped)}, block_size = {block}" if block else f"axis = {int(not flipped)}"
    )
    shape = "40,96" if flipped else "96,40"
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
      g (float[M,96] x, int4[{shape}] w, float[{size}] s, float[40] b) => (float[M,40] y) {{
        d = DequantizeLinear<{place}>(w, s)
        y = Gemm<transB = {int(flipped)}>(x, d, b)
      }}"""
    check(text, ir.tensor(lie(values), dtype=ir.DataType.INT4, name="w"), lie(steps), 4, 96, b=bias)


@pytest.mark.parametrize(("k", "block"), [(64, 32), (96, 32), (200, 0)])
@pytest.mark.parametrize("bits", [4, 8])
def test_zero_points_go_into_the_kernel(k: int, block: int, bits: int) -> None:
    top, weight, wide = (7 if bits == 4 else 127), normal(k, 40) / 8 + 0.1, block or k
    low, high = (end(weight.reshape(-1, wide, 40), axis=1) for end in (np.min, np.max))
    scale = ((high - low) / (2 * top + 1)).astype(np.float32)
    zeros = np.clip(np.rint(-low / scale) - top - 1, -top - 1, top).astype(np.int8)
    spread = [np.repeat(each, wide, axis=0) for each in (scale, zeros)]
    values = np.clip(np.rint(weight / spread[0]) + spread[1], -top - 1, top).astype(np.int8)
    if not block:
        scale, zeros = scale[0], zeros[0]
    dtype = ir.DataType.INT4 if bits == 4 else ir.DataType.INT8
    shape = ",".join(map(str, scale.shape))
    attributes = f"axis = 0, block_size = {block}" if block else "axis = 1"
    text = graph(k, 40, dtype.name.lower(), shape, attributes)
    kind = f"{dtype.name.lower()}[{shape}] z"
    text = text.replace(" s) =>", f" s, {kind}) =>").replace("(w, s)", "(w, s, z)")
    check(text, ir.tensor(values, dtype=dtype, name="w"), scale, bits, zeros=zeros)


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_activations_that_the_graph_rounds_are_not_rounded_again(kind: str) -> None:
    """Its kernel would make int8 of int16: `w8a16` engines were as coarse as int8 ones."""
    weight, scale = quantized(normal(64, 48) / 8, axis=1)
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
      g (float[M,64] x, int8[64,48] w, float[48] s) => (float[M,48] y)
      <float step = {{0.001}}, {kind} z = {{0}}> {{
        q = QuantizeLinear(x, step, z)
        r = DequantizeLinear(q, step, z)
        d = DequantizeLinear<axis = 1>(w, s)
        y = MatMul(r, d)
      }}"""
    model = parse(text, {"w": weight, "s": scale})
    assert not WeightOnlyMatMul()(model).modified
