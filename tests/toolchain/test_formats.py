"""FP8 and int16 activations: the same placement as INT8, in another format, where a backend has it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError, Error
from llmdeploy.calibration import E4M3, INT16, Format
from llmdeploy.deploy.audit import weights_of
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.trt import TensorRtRtx
from llmdeploy.deploy.trt_lint import lint
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.choosing import backend_of
from llmdeploy.toolchain.int8.quantizing import calibrate, quantize
from llmdeploy.toolchain.replay import replay

from .test_quantizing import batches, write

FEEDS = batches(8)
KINDS = {
    "fp8": (ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FN),
    "w8a16": (ir.DataType.INT16, ir.DataType.INT8),
}


def made(
    folder: Path, precision: str, max_drop: float = 0.01, preset: str = "balanced"
) -> dict[str, Any]:
    model = write(folder / "float")
    for name in ("calibrate", "quantize"):
        (folder / name).mkdir()
    options = {"mask": "attention_mask", "precision": precision}
    given: dict[str, Any] = {**options, "preset": preset}
    calibrate(model, folder / "calibrate", FEEDS[:6], held_out=FEEDS[6:], **given)
    where = (model, folder / "calibrate", folder / "quantize")
    return quantize(*where, feeds=FEEDS[6:], max_drop=max_drop, **options)


def engineable(folder: Path) -> Path:
    """The FP8 graph without the mask that it does not read."""
    made(folder, "fp8")
    path = folder / "quantize/model.onnx"
    model = onnx.load(path)
    del model.graph.input[1]
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("kind", "bound"), [(E4M3, 1 / 16), (INT16, 1e-4)])
def test_a_format_rounds_to_its_own_values(kind: Format, bound: float) -> None:
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    step = kind.step(float(np.abs(x).max()))
    wrong = np.abs(kind.rounded(x, step) - x)
    assert (wrong <= bound * np.maximum(np.abs(x), 0.01 if kind.relative else 1)).all()
    once = kind.rounded(x, step)
    np.testing.assert_array_equal(kind.rounded(once, step), once)
    assert kind.rounded(np.float32([1e6]), 1.0)[0] == kind.top


@pytest.mark.parametrize("precision", ["fp8", "w8a16"])
def test_the_graph_is_of_the_format_and_holds(tmp_path: Path, precision: str) -> None:
    # all that smoothing can do: what is left is the format's own rounding, 1/16 at most
    found, (activation, weight) = made(tmp_path, precision, preset="accuracy"), KINDS[precision]
    graph = ir.load(tmp_path / "quantize/model.onnx")
    quantised = [node for node in graph.graph if node.op_type == "QuantizeLinear"]
    weights = [
        node.inputs[0]
        for node in graph.graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer()
    ]
    assert {node.inputs[2].dtype for node in quantised} == {activation}
    assert {value.dtype for value in weights} == {weight}
    assert len(quantised) == len(weights) == 2
    assert found["int8_share"] == 1.0
    assert {layer["observer"] for layer in found["layers"]} == {"min-max"}
    before, after = (
        np.concatenate([each["out"] for each in replay(path, batches(4, seed=9))])
        for path in (tmp_path / "float/model.onnx", tmp_path / "quantize/model.onnx")
    )
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    cosine = ((before * after).sum(-1) / norms).mean()
    assert cosine > (0.997 if precision == "fp8" else 0.9999)


@pytest.mark.parametrize("precision", ["fp8", "w8a16"])
def test_a_budget_takes_layers_back_to_float(tmp_path: Path, precision: str) -> None:
    assert made(tmp_path, precision, max_drop=1e-9)["int8_share"] < 1


def test_tensorrt_rtx_compiles_fp8_and_stores_it(tmp_path: Path) -> None:
    path = engineable(tmp_path)
    assert lint(path, rtx=True) == []
    backend = TensorRtRtx()
    if why := backend.missing():
        pytest.skip(why)
    (tmp_path / "engine").mkdir()
    profile = Profile({"batch": (1, 4, 8), "sequence": (1, 6, 8)})
    facts = backend.build(path, tmp_path / "engine", profile, {}).facts
    assert facts["audit"]["asked"] == ("FLOAT8E4M3FN",)
    assert facts["compute_capabilities"] == ["8.9", "12.0"]
    assert facts["weights_memory_bytes"] < 0.6 * weights_of(tmp_path / "float/model.onnx")


def test_tensorrt_on_ampere_is_refused_fp8(tmp_path: Path) -> None:
    backend, path = TensorRtRtx(), engineable(tmp_path)
    if why := backend.missing():
        pytest.skip(why)
    profile = Profile({"batch": (1, 4, 8), "sequence": (1, 6, 8)})
    asked = {"compute_capabilities": ["8.0"]}
    with pytest.raises(Error, match=r"below 8\.9"):
        backend.build(path, tmp_path, profile, asked)


def test_int16_activations_run_on_onnx_runtime_and_not_on_tensorrt(tmp_path: Path) -> None:
    made(tmp_path, "w8a16")
    path, profile = tmp_path / "quantize/model.onnx", Profile({})
    backend = OnnxRuntime()
    backend.build(path, tmp_path / "engine", profile, {"threads": 1})
    with backend.runner(tmp_path / "engine") as run:
        engine = run(FEEDS[0])["out"]
    np.testing.assert_allclose(engine, replay(path, FEEDS[:1])[0]["out"], rtol=1e-3, atol=1e-3)
    assert "dtype" in {finding.rule for finding in lint(path)}


@pytest.mark.parametrize(
    ("backend", "precision"), [("onnxruntime", "fp8"), ("tensorrt-rtx", "w8a16")]
)
def test_a_backend_without_the_format_refuses_it(backend: str, precision: str) -> None:
    with pytest.raises(ConfigError, match=f"{backend} does not build {precision}"):
        backend_of(backend, precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "backend"), [("fp8", "tensorrt-rtx"), ("w8a16", "onnxruntime")]
)
def test_a_build_from_a_checkpoint(
    tmp_path: Path,
    give_llama: Callable[..., Path],
    some_texts: Path,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    backend: str,
) -> None:
    if why := {"tensorrt-rtx": TensorRtRtx, "onnxruntime": OnnxRuntime}[backend]().missing():
        pytest.skip(why)
    checkpoint = give_llama(tmp_path / "checkpoint", hidden_size=64, num_hidden_layers=1)
    where = ["-c", str(tmp_path / "llmdeploy.toml"), "-w", str(tmp_path / "artifacts")]
    assert cli.call(["init", str(checkpoint), *where[:2]]) == 0
    capsys.readouterr()
    asked = ["--precision", precision, "--backend", backend, "--samples", str(some_texts)]
    code = cli.call(["build", *asked, *where, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    report = json.loads(out)
    gates = {gate["name"]: gate["status"] for gate in report["gates"]}
    assert gates["parity.quantize"] == "pass"
    assert gates[f"precision.engine/{backend}"] == "pass"
    assert {layer["format"] for layer in report["quantization"]["layers"] if layer["int8"]} == {
        {"fp8": "FP8", "w8a16": "INT8 by INT16"}[precision]
    }
    assert cli.call(["build", "--precision", "fp8", "--backend", "onnxruntime", *where]) == 2
    assert "onnxruntime does not build fp8" in capsys.readouterr().err
