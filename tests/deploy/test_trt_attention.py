"""TensorRT gets attention written out: its compiler fuses that, and gains nothing by `Attention`.

What tells without a GPU is the memory of the engine: unfused, a layer holds the scores of every
query and key.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import BuildError
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.ort_attention import FuseAttention
from llmdeploy.deploy.trt import TensorRt, TensorRtRtx

from .graphs import normal, parse

pytest.importorskip("tensorrt_rtx")

HEADS, SIZE, BATCH, LENGTH = 4, 64, 8, 512
WIDTH = HEADS * SIZE
PROFILE = Profile({"B": (1, 4, BATCH), "S": (1, 256, LENGTH)})
SCORES = BATCH * HEADS * LENGTH * LENGTH * 2
"""Bytes of the scores of one layer in float16."""


def layer(kind: str) -> ir.Model:
    """Attention with its four projections, scaled in the weights."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g ({kind}[B,S,{WIDTH}] x, {kind}[B,1,1,S] m, {kind}[{WIDTH},{WIDTH}] wq, {kind}[{WIDTH},{WIDTH}] wk,
       {kind}[{WIDTH},{WIDTH}] wv, {kind}[{WIDTH},{WIDTH}] wo) => ({kind}[B,S,{WIDTH}] y)
      <int64[4] split = {{0, 0, {HEADS}, {SIZE}}}, int64[3] join = {{0, 0, {WIDTH}}}> {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        q4 = Reshape(q, split)
        k4 = Reshape(k, split)
        v4 = Reshape(v, split)
        qh = Transpose<perm = [0, 2, 1, 3]>(q4)
        kt = Transpose<perm = [0, 2, 3, 1]>(k4)
        vh = Transpose<perm = [0, 2, 1, 3]>(v4)
        s = MatMul(qh, kt)
        sm = Add(s, m)
        w = Softmax<axis = -1>(sm)
        o = MatMul(w, vh)
        ot = Transpose<perm = [0, 2, 1, 3]>(o)
        f = Reshape(ot, join)
        y = MatMul(f, wo)
      }}"""
    dtype = {"float": np.float32, "float16": np.float16}[kind]
    weights = {name: normal(WIDTH, WIDTH).astype(dtype) * dtype(0.02) for name in ("wq", "wk")}
    weights |= {name: normal(WIDTH, WIDTH).astype(dtype) * dtype(0.02) for name in ("wv", "wo")}
    return ir.passes.common.ShapeInferencePass()(parse(text, weights)).model


def built(model: ir.Model, folder: Path) -> int:
    """The scratch memory of the engine, in bytes."""
    folder.mkdir()
    ir.save(model, folder / "model.onnx")
    facts = TensorRtRtx().build(folder / "model.onnx", folder / "engine", PROFILE, {}).facts
    return facts["scratch_memory_bytes"]


@pytest.mark.parametrize("backend", [TensorRt, TensorRtRtx])
def test_its_lowering_leaves_attention_written_out(backend: type) -> None:
    assert not backend.takes.attention
    for precision in backend.precisions:
        kinds = [type(each).__name__ for each in backend().lowering(precision)]
        assert "FuseAttention" not in kinds


def test_half_precision_is_fused_as_it_is_written(tmp_path: Path) -> None:
    model = layer("float16")
    written = built(model, tmp_path / "written")
    assert FuseAttention()(model).modified
    fused = built(model, tmp_path / "fused")
    assert written < SCORES  # no room for the scores of a single layer
    assert written <= fused


def test_float32_has_no_kernel_of_its_own(tmp_path: Path) -> None:
    written = built(layer("float"), tmp_path / "written")
    assert written > 2 * SCORES


def test_a_newer_opset_than_its_parser_reads_is_refused(tmp_path: Path) -> None:
    model = layer("float16")
    model.opset_imports[""] = TensorRtRtx.takes.opsets[1] + 1
    ir.save(model, tmp_path / "model.onnx")
    with pytest.raises(BuildError, match="opset 26"):
        TensorRtRtx().build(tmp_path / "model.onnx", tmp_path / "engine", PROFILE, {})
