"""Graphs of bfloat16, which ONNX Runtime's CPU cannot run, are run in float32."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.passes import save
from llmdeploy.toolchain import replay
from llmdeploy.toolchain.widened import of_bfloat16

BRAIN = ml_dtypes.bfloat16
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
brain (bfloat16[b,64] x, bfloat16[64,64] w) => (bfloat16[b,64] y, float[b,64] z)
{
    half = Constant <value = bfloat16 {16128}> ()
    p = MatMul (x, w)
    q = Mul (p, half)
    z = Cast <to = 1> (q)
    t = Tanh (z)
    y = Cast <to = 16> (t)
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = ir.from_onnx_text(GRAPH)
    value = graph.graph.inputs.pop()
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(BRAIN)
    value.const_value = ir.tensor(weight, name="w")
    graph.graph.register_initializer(value)
    save(graph, tmp_path)
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("large", [False, True])
def test_it_runs_in_float32_and_gives_its_own_dtypes(model: Path, large: bool) -> None:
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(BRAIN)
    (made,) = replay.replaying(model, large=large)([{"x": x}])
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(BRAIN).astype(np.float32)
    wanted = x.astype(np.float32) @ weight * np.float32(0.5)
    assert (made["z"].dtype, made["y"].dtype) == (np.float32, BRAIN)
    np.testing.assert_allclose(made["z"], wanted, atol=1e-4)
    np.testing.assert_array_equal(made["y"], np.tanh(made["z"]).astype(BRAIN))


def test_a_graph_is_bfloat16_by_its_weights_and_inputs(model: Path, tmp_path: Path) -> None:
    assert of_bfloat16(model)
    plain = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 20]>
        plain (float[b,64] x) => (float[b,64] y) { y = Tanh (x) }""")
    save(plain, tmp_path / "plain")
    assert not of_bfloat16(tmp_path / "plain/model.onnx")
