"""A tied head's weight lies once in an engine of ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.ort_tied import TiedMatMul

from .graphs import evaluate, normal, ops, parse

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
TABLE = normal(200, 32)
IDS = {"ids": np.random.default_rng(0).integers(0, 200, (2, 5))}


def tied(head: str, kind: str = "float") -> ir.Model:
    text = f"""{HEAD}g (int64[b,s] ids, {kind}[200,32] t) => ({kind}[b,s,32] y, {kind} z) {{
        y = Gather(t, ids)
        {head}
    }}"""
    return parse(text, {"t": TABLE.astype(np.float16 if kind == "float16" else np.float32)})


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        ("Transpose<perm = [1, 0]>(t)", "float"),
        ("Transpose(t)", "float"),
        ("Transpose(t)", "float16"),
    ],
)
def test_the_head_reads_the_embedding_itself(turn: str, kind: str, tmp_path: Path) -> None:
    model = tied(f"u = {turn} z = MatMul(y, u)", kind)
    before = evaluate(model, IDS)
    assert TiedMatMul()(model).modified
    assert sorted(ops(model)) == ["FusedMatMul", "Gather"]
    after = evaluate(model, IDS)
    assert np.array_equal(after[0], before[0])
    close = 1e-6 if kind == "float" else 2e-3
    np.testing.assert_allclose(after[1], before[1], rtol=close, atol=10 * close)
    assert not TiedMatMul()(model).modified
    path = tmp_path / "model.onnx"
    ir.save(model, path)
    built = OnnxRuntime().build(path, tmp_path / "engine", Profile({}), {"threads": 1})
    size = TABLE.nbytes if kind == "float" else TABLE.nbytes // 2
    assert size <= built.facts["bytes"] < 1.3 * size


@pytest.mark.parametrize(
    "head",
    [
        "u = Transpose<perm = [0, 1]>(t) v = Transpose(y) z = MatMul(u, v)",
        "v = Relu(t) u = Transpose(v) z = MatMul(y, u)",
    ],
)
def test_what_is_no_tied_weight_is_left(head: str) -> None:
    assert not TiedMatMul()(tied(head)).modified


def test_a_weight_that_only_the_matmul_reads_is_folded_as_before() -> None:
    text = f"{HEAD}g (float[n,32] x, float[200,32] t) => (float z) {{ u = Transpose(t) z = MatMul(x, u) }}"
    assert not TiedMatMul()(parse(text, {"t": TABLE})).modified
