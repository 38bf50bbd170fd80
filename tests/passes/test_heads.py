"""Output heads that INT8 may take: marked, and with weights of their own."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.passes import load, save
from llmdeploy.passes.heads import FreeHeads
from llmdeploy.passes.sites import find

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
TABLE = np.random.default_rng(0).standard_normal((96, 16)).astype(np.float32)
TIED = """g (int64[b,s] ids) => (float[b,s,96] y) {
    x = Gather(t, ids)
    u = Transpose<perm = [1, 0]>(t)
    m = MatMul(x, u)
    y = Add(m, c)
}"""


def model(text: str, **weights: np.ndarray) -> ir.Model:
    proto = onnx.parser.parse_model(HEAD + text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def outputs(made: ir.Model, **feed: np.ndarray) -> np.ndarray:
    reference = onnx.reference.ReferenceEvaluator(ir.to_proto(made))
    return reference.run(None, feed)[0]


def test_a_tied_head_gets_a_weight_of_its_own_and_may_be_int8(tmp_path: Path) -> None:
    made = model(TIED, t=TABLE, c=np.ones(96, np.float32))
    ids = np.array([[3, 95, 0]])
    before = outputs(made, ids=ids)
    (site,) = find(made)
    assert site.layers[0].refused
    assert site.layers[0].head
    assert FreeHeads()(made).modified
    save(made, tmp_path)
    again = load(tmp_path / "model.onnx")
    (site,) = find(again)
    assert [layer.refused for layer in site.layers] == [""]
    assert site.eligible
    assert not site.inner
    assert "Transpose" not in [node.op_type for node in again.graph]
    np.testing.assert_allclose(outputs(again, ids=ids), before, rtol=1e-6)


def test_a_head_of_its_own_weight_is_marked_where_it_lies() -> None:
    text = "g (float[b,s,16] x) => (float[b,s,96] y) { y = MatMul(x, w) }"
    made = model(text, w=np.ascontiguousarray(TABLE.T))
    FreeHeads()(made)
    (site,) = find(made)
    assert [(layer.weight, layer.refused) for layer in site.layers] == [("w", "")]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[b,s,16] x) => (float[b,s,48] y) { y = MatMul(x, w) }",
        "g (float[b,s,16] x) => (float[b,s,48] y) { m = MatMul(x, w) y = Relu(m) }",
    ],
)
def test_what_is_no_vocabulary_is_no_head(text: str) -> None:
    made = model(text, w=np.ascontiguousarray(TABLE[:48].T))
    assert not FreeHeads()(made).modified
