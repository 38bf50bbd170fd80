from pathlib import Path

import numpy as np
import onnx_ir as ir
from llmdeploy.deploy.ort_session import Settings, open_session

from .graphs import parse

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (uint8[N,64] x, int8[64,2] w) => (int32[N,2] y) { y = MatMulInteger(x, w) }"""


def test_int8_that_another_tool_made_is_exact_on_every_processor(tmp_path: Path) -> None:
    """Without VNNI two products of 255 * 127 do not fit where they are added up."""
    path = tmp_path / "model.onnx"
    ir.save(parse(TEXT, {"w": np.full((64, 2), 127, np.int8)}), path)
    feed = {"x": np.full((3, 64), 255, np.uint8)}
    (made,) = open_session(path, Settings()).run(None, feed)
    assert (made == 64 * 255 * 127).all()
