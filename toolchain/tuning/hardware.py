"""What the target does in a second, measured through its own door: multiplying, reading weights.

A roofline (Williams, Waterman, Patterson 2009) needs two figures of a machine: how many operations
a second its MatMul reaches when operands are at hand, and how many bytes of weights a second pass
through when each is used once.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ...deploy.backend import Backend, Profile
from ..machine import machine
from .clock import Clock

#: Rows, inputs and outputs of the MatMul that throughput is told by: an encoder's usual sizes.
ROWS, WIDTH = 256, 1024
#: Inputs and outputs of the one that bandwidth is told by: 64 MB of weights for one row.
STREAM = 4096
#: The share of parameters that the thin pair of a factored weight saves.
THIN = 0.25
SECONDS = 0.4
Array = NDArray[Any]


class Hardware(BaseModel):
    """One target on one machine: operations and bytes a second, measured; a MatMul's fp32 is 1.

    `int8_gain` is how many times as fast the INT8 form of the same MatMul is, `thin_gain` that of
    two thin ones with a quarter fewer parameters. None is what the target has not.
    """

    model_config = ConfigDict(frozen=True)

    target: str
    cpu: str
    cores: int
    memory_bytes: int
    flops: float
    bytes_per_s: float
    int8_gain: float | None = None
    thin_gain: float | None = None

    @property
    def ridge(self) -> float:
        """Operations a byte from which on multiplying takes longer than reading."""
        return self.flops / self.bytes_per_s


def probe(target: str, backend: Backend, options: dict[str, object], clock: Clock) -> Hardware:
    """Build four small models on the target and time them, nobody else at work.

    Raises:
        BuildError: the target cannot even build a MatMul.
    """
    here = machine()
    with clock.timing(), tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder:
        timer = _Timer(backend, options, Path(folder))
        whole = timer(_dense(WIDTH, WIDTH), ROWS)
        stream = timer(_dense(STREAM, STREAM), 1)
        rank = round((1 - THIN) * WIDTH / 2)
        thin = timer(_thin(WIDTH, rank), ROWS)
        int8: float | None = None
        if "int8" in backend.precisions:
            int8 = timer(_int8(WIDTH, WIDTH), ROWS, "int8")
    return Hardware(
        target=target,
        cpu=here.cpu,
        cores=here.cores,
        memory_bytes=here.memory_bytes,
        flops=2 * ROWS * WIDTH * WIDTH / whole,
        bytes_per_s=4 * STREAM * STREAM / stream,
        int8_gain=whole / int8 if int8 else None,
        thin_gain=whole / thin,
    )


class _Timer:
    """The least seconds that a small model takes on the target."""

    def __init__(self, backend: Backend, options: dict[str, object], folder: Path) -> None:
        self._backend, self._options, self._folder, self._count = backend, options, folder, 0

    def __call__(self, model: Any, rows: int, precision: str = "fp32") -> float:
        self._count += 1
        place = self._folder / str(self._count)
        path = _lowered(model, self._backend, precision, place)
        width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        profile = Profile({"rows": (1, rows, rows)})
        self._backend.build(path, place / "engine", profile, self._options)
        feed = {"x": np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)}
        with self._backend.runner(place / "engine") as run:
            return _least(lambda: run(feed))


def _least(call: Callable[[], object]) -> float:
    call()
    found, ends = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < ends:
        started = time.perf_counter()
        call()
        found = min(found, time.perf_counter() - started)
    return found


def _lowered(model: Any, backend: Backend, precision: str, place: Path) -> Path:
    import onnx

    from ...passes import PassManager, load, save

    place.mkdir()
    onnx.save(model, str(place / "plain.onnx"))
    made, _ = PassManager(list(backend.lowering(precision))).run(load(place / "plain.onnx"))
    save(made, place / "lowered")
    return place / "lowered" / "model.onnx"


def _model(nodes: list[Any], constants: dict[str, Array], width: int, out: int) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    ends = (("x", width), ("y", out))
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", w]) for n, w in ends]
    graph = helper.make_graph(nodes, "probe", infos[:1], infos[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _weights(*shape: int) -> Array:
    return np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)


def _dense(k: int, n: int) -> Any:
    from onnx import helper

    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    return _model([node], {"w": _weights(k, n)}, k, n)


def _thin(width: int, rank: int) -> Any:
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["x", "l"], ["h"], name="left"),
        helper.make_node("MatMul", ["h", "r"], ["y"], name="right"),
    ]
    return _model(nodes, {"l": _weights(width, rank), "r": _weights(rank, width)}, width, width)


def _int8(k: int, n: int) -> Any:
    """An input and a weight, each through Q/DQ, the strictest reader's form of an INT8 MatMul."""
    from onnx import helper

    scale, zero = np.array(0.03, np.float32), np.array(0, np.int8)
    levels = np.random.default_rng(0).integers(-127, 128, (k, n)).astype(np.int8)
    spread = {"ws": np.full(n, 0.001, np.float32), "wz": np.zeros(n, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"], axis=1, name="weight"),
        helper.make_node("MatMul", ["d", "v"], ["y"], name="m"),
    ]
    return _model(nodes, {"s": scale, "z": zero, "w": levels, **spread}, k, n)
