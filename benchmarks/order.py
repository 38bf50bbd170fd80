"""What an engine's own order of operators is worth beside the one ONNX Runtime sorts it into.

    python benchmarks/order.py WORKSPACE... [--shape 1x32]... [--rounds 12] [--json]

Of workspaces with an onnxruntime engine, as `build` or another benchmark's `--workspace` leaves
them; each engine against itself, interleaved in one run: `faster` is the time in the sorted order
over that in the file's, with its interval at 95 %. `equal` says whether all outputs are the same
bits.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
from int8_speed import SHAPES, environment
from llmdeploy import Error
from llmdeploy.deploy.latency import Feed, measure
from llmdeploy.deploy.ort_session import Settings, fitting, open_session, options
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.feeds import timed_phases
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspaces", nargs="+", type=Path, metavar="WORKSPACE")
    parser.add_argument("--shape", action="append", help="BATCHxSEQUENCE; may repeat")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def opened(folder: Path, threads: int, order: Any) -> Callable[[Feed], list[Any]]:
    settings = Settings.load(folder).model_copy(update={"threads": threads})
    made = options(settings)
    made.execution_order = order
    session = open_session(folder / settings.file, settings, made)
    return lambda feed: list(session.run(None, fitting(session, feed)))


def rows(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    sizes = [each.split("x") for each in asked.shape or ()]
    shapes = [(int(batch), int(sequence)) for batch, sequence in sizes] or SHAPES
    orders = ort.ExecutionOrder
    for root in asked.workspaces:
        run = Run(Config(), Workspace(root))
        folder = run.folder("engine/onnxruntime")
        ways = {
            "sorted": opened(folder, asked.threads, orders.DEFAULT),
            "file": opened(folder, asked.threads, orders.PRIORITY_BASED),
        }
        for phase, feeds in timed_phases(run, shapes=shapes).items():
            for shape, feed in feeds.items():
                yield {"model": root.name, "phase": phase, "shape": shape, **one(ways, feed, asked)}


def one(
    ways: dict[str, Callable[[Feed], list[Any]]], feed: Feed, asked: argparse.Namespace
) -> dict[str, Any]:
    first, own = measure(ways, {"": feed}, rounds=asked.rounds, budget_s=60)
    pairs = zip(ways["sorted"](feed), ways["file"](feed), strict=True)
    return {
        "sorted_ms": first.median_ms,
        "file_ms": own.median_ms,
        "faster": round(own.speedup, 3),
        "low": round(own.speedup_low, 3),
        "high": round(own.speedup_high, 3),
        "equal": all(one.tobytes() == other.tobytes() for one, other in pairs),
    }


def main() -> None:
    asked = arguments()
    found: list[dict[str, Any]] = []
    try:
        for each in rows(asked):
            found.append(each)
            shown = "  ".join(f"{name} {value}" for name, value in each.items())
            print(shown, file=sys.stderr if asked.json else sys.stdout, flush=True)
    except Error as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment(asked)}))


if __name__ == "__main__":
    main()
