"""One weight that several layers read stays one: a model of shared layers grows by no pass."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.passes import save
from llmdeploy.toolchain.compress.stage import carry_out
from llmdeploy.toolchain.compress.subject import Subject
from llmdeploy.toolchain.config import PassTable

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[b,s,32] x) => (float[b,s,32] y)
{ u = MatMul(x, first)
  h = Relu(u)
  v = MatMul(h, shared)
  r = Relu(v)
  w = MatMul(r, shared)
  y = Relu(w) }
"""


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"use": "low-rank", "ratio": 0.3, "multiple": 1}, "factored"),
        ({"use": "sparsify", "pattern": "2:4"}, "sparse"),
        ({"use": "sparsify", "pattern": "unstructured"}, "sparse"),
    ],
)
def test_shared_weights_are_left_alone_by_name(
    options: dict[str, object], rows: str, tmp_path: Path
) -> None:
    random, proto = np.random.default_rng(0), onnx.parser.parse_model(TEXT)
    for name in ("first", "shared"):
        array = random.normal(size=(32, 32)).astype("f4") / 6
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    save(ir.from_proto(proto), tmp_path / "dense")
    feeds = [{"x": random.normal(size=(4, 25, 32)).astype("f4")} for _ in range(6)]
    subject = Subject(tmp_path / "dense" / "model.onnx", feeds[:4], feeds[4:])
    table = PassTable.model_validate({**options, "max_drop": 9})
    told = carry_out(subject, [table], OnnxRuntime(), tmp_path / "out")
    assert len(told[rows]) == 1
    assert [each["reason"] for each in told["left_alone"]] == [
        "its weight is shared by 2 nodes",
        "its weight is shared by 2 nodes",
    ]
    (step,) = told["steps"]
    assert step["bytes_after"] <= step["bytes_before"]
