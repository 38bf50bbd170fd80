"""Whether `llmdeploy bench` tells the truth: float against INT8, beside a plain loop of our own.

    python benchmarks/bench_check.py FLOAT INT8 [--shape 1x64] [--rounds 20] [--repeat 3] [--json]

FLOAT and INT8 are engines of the ONNX Runtime backend. The loop opens ONNX Runtime sessions itself
and gives each in turn an untimed run and a few timed ones. The verb and the loops run in processes
of their own and are repeated in turn, so that what else the machine does falls on all; ratios of
medians are compared.

How many runs an engine has before the other's turn changes the answer: a small INT8 engine is
faster once its weights are in the caches again. The verb times bursts of five in an order drawn
anew, so that an engine often has two bursts on end. The difference to each loop is shown: of
twenty, which is nearly an engine alone, of five, and of one.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime as ort
from llmdeploy.deploy.runtime import load
from llmdeploy.toolchain.benching import shape
from llmdeploy.toolchain.phases import feed

WARM_UP = 10
WITHIN = 0.05
#: Timed runs of an engine before the other's turn.
BURSTS = (20, 5, 1)


def verb(paths: list[str], where: str, rounds: int, threads: int) -> tuple[float, float]:
    """Median milliseconds of both engines as `llmdeploy bench --json` gives them."""
    options = ["--shape", where, "--rounds", str(rounds), "--threads", str(threads), "--cold", "0"]
    command = [sys.executable, "-m", "llmdeploy", "bench", *paths, *options]
    # A workspace that is not there: nothing is to be written.
    command += ["-w", str(Path(paths[0]) / "none"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = json.loads(done.stdout)["rows"]
    return first["median_ms"], second["median_ms"]


def loop(paths: list[str], where: str, runs: int, threads: int, burst: int) -> tuple[float, float]:
    """Median milliseconds of both engines, `burst` runs at a time in turn."""
    with load(Path(paths[0])) as session:
        arrays = dict(feed(session, *shape(where)))
    sessions = [plain(path, threads) for path in paths]
    seconds: list[list[float]] = [[], []]
    for turn in range(-(-(WARM_UP + runs) // burst)):
        for index, session in enumerate(sessions):
            session.run(None, arrays)  # outlasts the spinning threads of the other
            timed = [once(session, arrays) for _ in range(burst)]
            seconds[index] += timed if turn * burst >= WARM_UP else []
    return median(seconds[0]) * 1e3, median(seconds[1]) * 1e3


def alone(*arguments: Any) -> tuple[float, float]:
    """The loop in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(loop, *arguments).result()


def once(session: ort.InferenceSession, arrays: dict[str, Any]) -> float:
    started = time.perf_counter()
    session.run(None, arrays)
    return time.perf_counter() - started


def plain(path: str, threads: int) -> ort.InferenceSession:
    """A session with the threads asked for, of the graph as it is: it was optimised when built."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    return ort.InferenceSession(
        str(Path(path) / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )


def rows(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a method, over the middle of its repeats; a loop's with the verb's difference."""
    paths = [asked.float, asked.int8]
    where, threads = asked.shape, asked.threads
    ways = {"llmdeploy bench": lambda: verb(paths, where, asked.rounds, threads)}
    for each in BURSTS:
        ways[f"plain loop of {each}"] = partial(
            alone, paths, where, asked.rounds * 5, threads, each
        )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(asked.repeat):
        for name, way in ways.items():
            found[name].append(way())
    made = [row(asked, name, pairs) for name, pairs in found.items()]
    return [made[0], *(against(made[0], each) for each in made[1:])]


def against(verb: dict[str, Any], loop: dict[str, Any]) -> dict[str, Any]:
    """A loop's row with how far the verb's ratio is from its own."""
    apart = verb["ratio"] / loop["ratio"] - 1
    return {**loop, "difference": apart, "within": abs(apart) <= WITHIN}


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
    for each in found:
        apart = ""
        if "difference" in each:
            word = "within" if each["within"] else "not within"
            apart = f"; bench {each['difference']:+.1%}, {word} {WITHIN:.0%}"
        print(
            f"{each['method']:16} float {each['float_ms']:8.3f} ms  int8 {each['int8_ms']:8.3f} ms"
            f"  ratio {each['ratio']:.3f} of {each['ratios']}{apart}"
        )


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
