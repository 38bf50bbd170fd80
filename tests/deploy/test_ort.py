import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import BuildError, ConfigError, MissingError
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.ort import OnnxRuntime

from .graphs import evaluate, normal, parse, quantized
from .test_ort_int8 import feed, matmul


def build(model: ir.Model, folder: Path, **options: object) -> Path:
    ir.save(model, folder / "model.onnx")
    engine = folder / "engine"
    OnnxRuntime().build(folder / "model.onnx", engine, Profile(), options)
    return engine


def lowered(model: ir.Model) -> ir.Model:
    for each in OnnxRuntime().lowering("int8"):
        each(model)
    return model


def test_an_engine_gives_the_numbers_of_the_neutral_graph(tmp_path: Path) -> None:
    before = evaluate(matmul(), feed())
    engine = build(lowered(matmul()), tmp_path)
    with OnnxRuntime().runner(engine) as run:
        outputs = run(feed())
    assert list(outputs) == ["y"]
    np.testing.assert_allclose(outputs["y"], before[0], rtol=1e-6, atol=1e-5)


def test_the_saved_engine_is_optimised_and_keeps_its_settings(tmp_path: Path) -> None:
    engine = build(lowered(matmul()), tmp_path, threads=1, spinning=False)
    settings = json.loads((engine / "engine.json").read_text())
    assert (settings["threads"], settings["spinning"], settings["optimized"]) == (1, False, True)
    nodes = [node.op_type for node in ir.load(engine / "model.onnx").graph]
    assert nodes == ["QuantizeLinear", "MatMulIntegerToFloat"]


def test_weights_stay_int8_beside_the_graph(tmp_path: Path) -> None:
    engine = build(lowered(matmul(256, 512)), tmp_path)
    assert (engine / "model.onnx.data").stat().st_size < 1.1 * 256 * 512
    assert (engine / "model.onnx").stat().st_size < 16_000


def test_the_bias_of_a_column_of_zeros_is_kept(tmp_path: Path) -> None:
    """As int32 in steps of activation and weight, both least, it would be beyond what int32 holds."""
    weight, scale = quantized(normal(16, 24), axis=1)
    weight[:, 3], scale[3] = 0, 1e-12
    text = """<ir_version: 10, opset_import: ["" : 21]>
      g (float[N,16] x, int8[16,24] w, float[24] ws, int8[24] wz, float[24] b) => (float[N,24] y)
      <float s = {0.0001}, int16 z = {0}> {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 1>(w, ws, wz)
        p = Gemm(d, wd, b)
        h = Relu(p)
        hq = QuantizeLinear(h, s, z)
        y = DequantizeLinear(hq, s, z)
      }"""
    given = {"w": weight, "ws": scale, "wz": np.zeros(24, np.int8), "b": np.ones(24, np.float32)}
    before = evaluate(parse(text, given), x := {"x": normal(5, 16, seed=2)})
    with OnnxRuntime().runner(build(parse(text, given), tmp_path)) as run:
        np.testing.assert_allclose(run(x)["y"], before[0], rtol=1e-6, atol=1e-5)


def test_layer_normalisation_is_not_fused_with_the_sum_before_it(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
      g (float[N,S,8] a, float[N,S,8] b, float[8] scale, float[8] bias) => (float[N,S,8] y) {
        t = Add(a, b)
        y = LayerNormalization(t, scale, bias)
      }"""
    model = parse(text, {"scale": normal(8), "bias": normal(8, seed=1)})
    engine = build(model, tmp_path)
    assert [n.op_type for n in ir.load(engine / "model.onnx").graph] == [
        "Add",
        "LayerNormalization",
    ]


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key workspace.*it takes provider, threads"):
        build(matmul(), tmp_path, workspace=3)


def test_a_gpu_that_is_not_here_is_no_silent_cpu(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="CUDAExecutionProvider was asked for"):
        build(matmul(), tmp_path, provider="cuda")


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(BuildError, match="cannot be loaded") as caught:
        OnnxRuntime().build(tmp_path / "model.onnx", tmp_path / "engine", Profile(), {})
    assert "\n" not in str(caught.value)


def test_a_wrong_feed_names_the_engine(tmp_path: Path) -> None:
    engine = build(lowered(matmul()), tmp_path)
    with OnnxRuntime().runner(engine) as run, pytest.raises(BuildError, match="the engine failed"):
        run({"nonsense": np.ones(3)})


def test_settings_that_do_not_fit_are_told(tmp_path: Path) -> None:
    engine = build(lowered(matmul()), tmp_path)
    (engine / "engine.json").write_text('{"threads": -1}')
    with (
        pytest.raises(BuildError, match=r"engine\.json does not fit: threads: -1 should be"),
        OnnxRuntime().runner(engine),
    ):
        pass
