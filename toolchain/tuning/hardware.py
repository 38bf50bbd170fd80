"""What the target does in a second, measured through its own door: multiplying, reading weights.

A roofline (Williams, Waterman, Patterson 2009) needs two figures of a machine: how many operations
a second its MatMul reaches when operands are at hand, and how many bytes of weights a second pass
through when each is used once.
"""

import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
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
#: Seconds for each, in so many turns.
SECONDS, TURNS = 0.6, 6
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
    here, rank = machine(), round((1 - THIN) * WIDTH / 2)
    asked = {
        "whole": (_dense(WIDTH, WIDTH), ROWS, "fp32"),
        "stream": (_dense(STREAM, STREAM), 1, "fp32"),
        "thin": (_thin(WIDTH, rank), ROWS, "fp32"),
    }
    if "int8" in backend.precisions:
        asked["int8"] = (_int8(WIDTH, WIDTH), ROWS, "int8")
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder, ExitStack() as stack:
        calls = {
            name: stack.enter_context(_opened(backend, options, Path(folder) / name, *each))
            for name, each in asked.items()
        }
        with clock.timing():
            found = _least(calls)
    return Hardware(
        target=target,
        cpu=here.cpu,
        cores=here.cores,
        memory_bytes=here.memory_bytes,
        flops=2 * ROWS * WIDTH * WIDTH / found["whole"],
        bytes_per_s=4 * STREAM * STREAM / found["stream"],
        int8_gain=found["whole"] / found["int8"] if "int8" in found else None,
        thin_gain=found["whole"] / found["thin"],
    )


@contextmanager
def _opened(
    backend: Backend,
    options: dict[str, object],
    place: Path,
    model: Any,
    rows: int,
    precision: str,
) -> Generator[Callable[[], object]]:
    """A small model as an engine of the target, ready to be called."""
    path = _lowered(model, backend, precision, place)
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    profile = Profile({"rows": (1, rows, rows)})
    backend.build(path, place / "engine", profile, options)
    feed = {"x": np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)}
    with backend.runner(place / "engine") as run:
        yield lambda: run(feed)


def _least(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The least seconds of each, in turns: what else the machine does only ever adds."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(TURNS):
        for name, call in calls.items():
            call()
            ends = time.perf_counter() + SECONDS / TURNS
            while time.perf_counter() < ends:
                started = time.perf_counter()
                call()
                found[name] = min(found[name], time.perf_counter() - started)
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
