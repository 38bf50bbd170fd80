"""What the Attention kernel of this ONNX Runtime does where its specification left room: tried."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ort_session import onnxruntime

_TEXT = """<ir_version: 10, opset_import: ["" : 23]>
g (float[1,2,4] x, float[1,2,4] v, float[1,1,2,2] m) => (float[1,2,4] y) {{
  y = Attention<q_num_heads = 2, kv_num_heads = 2, softcap = {cap}>(x, x, v, m)
}}"""


def hidden_rows_are_zero() -> bool:
    """Whether a row whose mask is -inf throughout gives 0."""
    y = _attention(np.array([[0, 0], [-np.inf] * 2]))
    return y is not None and bool((y[0] == 1).all() and (y[1] == 0).all())


def caps_before_the_mask() -> bool:
    """Whether scores are capped before the mask is added, as models do, and hidden ones stay so."""
    v = np.array([[1, 1, 1, 1], [2, 2, 2, 2]])
    y = _attention(np.array([[0, -np.inf], [0, 0]]), v=v, cap=2.0)
    return y is not None and bool(np.allclose(y, [[1.0] * 4, [1.5] * 4], atol=1e-6))


def _attention(
    mask: NDArray[Any], v: NDArray[Any] | None = None, cap: float = 0.0
) -> NDArray[np.float32] | None:
    """[2, 4], two heads of ones for queries and keys; None where there is no such kernel."""
    from onnx import parser

    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    x = np.ones((1, 2, 4), np.float32)
    values = x if v is None else v.astype(np.float32)[None]
    feed = {"x": x, "v": values, "m": mask.astype(np.float32)[None, None]}
    try:
        blob = parser.parse_model(_TEXT.format(cap=cap)).SerializeToString()
        session = ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
        return session.run(None, feed)[0][0]
    except Exception:  # no such kernel: what it would give cannot be relied on
        return None
