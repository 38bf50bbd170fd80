"""What ONNX Runtime's integer products cost and whether they are exact on this processor.

    python benchmarks/int8_products.py [--rounds 60] [--json]

For the shapes of MiniLM's layers: uint8 activations by int8 weights of any size, by int8 weights
whose products fit in 16 bits two by two (`[calibration] pairs`), by uint8 weights, and float. For
shapes of SmolLM2, its output head the last: float activations by int8 weights in blocks (`w8`,
`[quantize] vocabulary`), whose kernel rounds activations by the same blocks, and float; every 97th
channel is 8 times the others. CPU milliseconds of one thread, the least of many interleaved runs;
`wrong` is the largest error over the largest output.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from llmdeploy.calibration import pairs
from llmdeploy.toolchain.machine import machine
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SHAPES = ((32, 384, 384), (128, 384, 1152), (128, 384, 1536), (128, 1536, 384), (1024, 1536, 384))
BLOCKED = (
    *((m, 1536, 576) for m in (1, 16, 128)),
    *((m, 576, 49152) for m in (1, 16, 128)),
)
STEP, BLOCKS = 0.01, (16, 32, 64, 128)


@dataclass(frozen=True)
class Way:
    """A product: its model, what it is fed, and what it should give."""

    name: str
    session: Any
    feed: NDArray[Any]
    wanted: NDArray[np.float64]


def session(
    op: str, domain: str, x: int, constants: dict[str, NDArray[Any]], names: str, **more: int
) -> Any:
    node = helper.make_node(op, names.split(), ["y"], domain=domain, **more)
    ends = (
        [helper.make_tensor_value_info("x", x, ["m", "k"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", "n"])],
    )
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "product", *ends, weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def ways(m: int, k: int, n: int) -> Iterator[Way]:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (m, k)).astype(np.uint8)
    signed = random.integers(-127, 128, (k, n)).astype(np.int8)
    weights = {
        "uint8 by int8": (signed, 0),
        "uint8 by int8 that fits": (pairs.fitted(signed), 0),
        "uint8 by uint8": (signed.view(np.uint8) ^ np.uint8(128), 128),
    }
    for name, (weight, zero) in weights.items():
        constants = {
            "w": weight,
            "xs": np.array(STEP, np.float32),
            "ws": np.full(n, STEP, np.float32),
            "xz": np.array(128, np.uint8),
            "wz": np.array(zero, weight.dtype),
        }
        made = session("MatMulIntegerToFloat", "com.microsoft", 2, constants, "x w xs ws xz wz")
        wanted = (x.astype(np.float64) - 128) @ (weight.astype(np.float64) - zero) * STEP**2
        yield Way(name, made, x, wanted)
    constants = {"w": signed.astype(np.float32)}
    made, floats = session("MatMul", "", 1, constants, "x w"), x.astype(np.float32)
    yield Way("float", made, floats, floats.astype(np.float64) @ signed)


def blocked(m: int, k: int, n: int) -> Iterator[Way]:
    random = np.random.default_rng(0)
    x = random.standard_normal((m, k)).astype(np.float32)
    x[:, ::97] *= 8
    levels = random.integers(1, 256, (n, k)).astype(np.uint8)  # 128 is 0
    weight = (levels.T.astype(np.float32) - 128) * np.float32(STEP)
    wanted = x.astype(np.float64) @ weight
    for block in (block for block in BLOCKS if k % block == 0):
        packed = levels.reshape(n, k // block, block)
        constants = {"w": packed, "ws": np.full(n * k // block, STEP, np.float32)}
        sizes = {"K": k, "N": n, "bits": 8, "block_size": block, "accuracy_level": 4}
        made = session("MatMulNBits", "com.microsoft", 1, constants, "x w ws", **sizes)
        yield Way(f"int8 in blocks of {block}", made, x, wanted)
    yield Way("float", session("MatMul", "", 1, {"w": weight}, "x w"), x, wanted)


def row(way: Way, shape: str, seconds: list[float], plain: float) -> dict[str, Any]:
    (made,) = way.session.run(None, {"x": way.feed})
    wrong = float(np.abs(made - way.wanted).max() / np.abs(way.wanted).max())
    least = 1e3 * min(seconds)
    facts = {"cpu_ms": round(least, 3), "speedup": round(plain / least, 2), "wrong": wrong}
    return {"model": shape, "method": way.name, **facts}


def measure(shape: tuple[int, int, int], rounds: int) -> Iterator[dict[str, Any]]:
    tried = list(blocked(*shape) if shape in BLOCKED else ways(*shape))
    seconds: dict[str, list[float]] = {way.name: [] for way in tried}
    for _ in range(rounds):
        for way in tried:
            started = time.process_time()
            way.session.run(None, {"x": way.feed})
            seconds[way.name].append(time.process_time() - started)
    plain = 1e3 * min(seconds["float"])
    for way in tried:
        yield row(way, "{0}x{1} by {1}x{2}".format(*shape), seconds[way.name], plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    here, rows = machine(), list[dict[str, Any]]()
    for shape in (*SHAPES, *BLOCKED):
        for each in measure(shape, asked.rounds):
            rows.append(each)
            print(
                f"{each['model']:24} {each['method']:24} {each['cpu_ms']:8.3f} CPU ms"
                f" {each['speedup']:6.2f} x float   wrong {each['wrong']:.1e}",
                file=sys.stderr if asked.json else sys.stdout,
            )
    facts = {"cpu": here.cpu, "features": here.features, "onnxruntime": ort.__version__}
    if asked.json:
        print(json.dumps({"rows": rows, "environment": {**facts, "os": platform.platform()}}))


if __name__ == "__main__":
    main()
