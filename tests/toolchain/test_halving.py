"""16 bits by name: what `[calibration] keep` names stays float32, and a name of nothing is told."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError
from llmdeploy.toolchain.halving import halve

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
two (float[n,2] x) => (float[n,2] y) <float[2,2] w = {0.5, 1.0, 1.5, 2.0}>
{
    [first] h = MatMul (x, w)
    [second] y = MatMul (h, w)
}
"""


@pytest.mark.parametrize("name", ["first", "h"])
def test_what_is_kept_by_name_stays_float(name: str, tmp_path: Path) -> None:
    model = tmp_path / "two.onnx"
    ir.save(ir.from_onnx_text(TEXT), model)
    feeds = [{"x": np.ones((3, 2), np.float32)}]
    (tmp_path / "out").mkdir()
    made = halve(model, tmp_path / "out", feeds, precision="fp16", keep=[name])
    assert made["notes"] == ["1 nodes kept: it is to be kept"]


def test_a_name_of_no_node_is_told(tmp_path: Path) -> None:
    model = tmp_path / "two.onnx"
    ir.save(ir.from_onnx_text(TEXT), model)
    with pytest.raises(ConfigError, match=r"no node called 'frist', \[calibration\] keep"):
        halve(model, tmp_path, [], precision="fp16", keep=["second", "frist"])
