"""Whether `llmdeploy bench` tells the truth: float against INT8, beside a plain loop of our own.

    python benchmarks/bench_check.py FLOAT INT8 [--shape 1x64] [--rounds 20] [--repeat 3] [--json]

FLOAT and INT8 are engines of the ONNX Runtime backend. The verb runs in a process of its own; the
loop opens ONNX Runtime sessions itself and calls them in turn, one run each. Both are repeated in
turn, so that what else the machine does falls on both; the ratio of medians is what is compared.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime as ort
from llmdeploy.deploy.runtime import load
from llmdeploy.toolchain.benching import shape
from llmdeploy.toolchain.phases import feed

WARM_UP = 10
WITHIN = 0.05


def verb(paths: list[str], where: str, rounds: int, threads: int) -> tuple[float, float]:
    """Median milliseconds of both engines as `llmdeploy bench --json` gives them."""
    options = ["--shape", where, "--rounds", str(rounds), "--threads", str(threads), "--cold", "0"]
    command = [sys.executable, "-m", "llmdeploy", "bench", *paths, *options]
    # A workspace that is not there: nothing is to be written.
    command += ["-w", str(Path(paths[0]) / "none"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = json.loads(done.stdout)["rows"]
    return first["median_ms"], second["median_ms"]


def loop(paths: list[str], where: str, runs: int, threads: int) -> tuple[float, float]:
    """Median milliseconds of both engines, run by run in turn."""
    with load(Path(paths[0])) as session:
        arrays = dict(feed(session, *shape(where)))
    sessions = [plain(path, threads) for path in paths]
    seconds: list[list[float]] = [[], []]
    for run in range(WARM_UP + runs):
        for session, found in zip(sessions, seconds, strict=True):
            session.run(None, arrays)  # outlasts the spinning threads of the other
            started = time.perf_counter()
            session.run(None, arrays)
            if run >= WARM_UP:
                found.append(time.perf_counter() - started)
    return median(seconds[0]) * 1e3, median(seconds[1]) * 1e3


def plain(path: str, threads: int) -> ort.InferenceSession:
    """A session with the threads asked for, of the graph as it is: it was optimised when built."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    return ort.InferenceSession(
        str(Path(path) / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )


def rows(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a method, over the middle of its repeats, and a last one with their difference."""
    paths = [asked.float, asked.int8]
    ways = {
        "llmdeploy bench": lambda: verb(paths, asked.shape, asked.rounds, asked.threads),
        "plain loop": lambda: loop(paths, asked.shape, asked.rounds * 5, asked.threads),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(asked.repeat):
        for name, way in ways.items():
            found[name].append(way())
    made = [row(asked, name, pairs) for name, pairs in found.items()]
    apart = made[0]["ratio"] / made[1]["ratio"] - 1
    last = {"model": asked.int8, "method": "difference", "ratio": apart}
    return [*made, {**last, "within": abs(apart) <= WITHIN}]


def row(asked: argparse.Namespace, name: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "model": asked.int8,
        "method": name,
        "float_ms": median(one for one, _ in pairs),
        "int8_ms": median(two for _, two in pairs),
        "ratio": median(one / two for one, two in pairs),
        "ratios": [round(one / two, 4) for one, two in pairs],
    }


def show(found: list[dict[str, Any]]) -> None:
    for each in found[:-1]:
        print(
            f"{each['method']:16} float {each['float_ms']:8.3f} ms  int8 {each['int8_ms']:8.3f} ms"
            f"  ratio {each['ratio']:.3f} of {each['ratios']}"
        )
    last = found[-1]
    word = "within" if last["within"] else "not within"
    print(f"{'difference':16} {last['ratio']:+.1%}: {word} {WITHIN:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("float")
    parser.add_argument("int8")
    parser.add_argument("--shape", default="1x64")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = rows(asked)
    if not asked.json:
        show(found)
        return
    environment = {
        "onnxruntime": ort.__version__,
        "python": sys.version.split()[0],
        "shape": asked.shape,
        "threads": asked.threads,
    }
    print(json.dumps({"rows": found, "environment": environment}))


if __name__ == "__main__":
    main()
