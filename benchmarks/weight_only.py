"""Weights alone in few bits beside float and beside ONNX Runtime's own quantiser.

    python benchmarks/weight_only.py [--precision w8|int4|int8]... [--method rtn|gptq|awq|auto]...
        [--vocabulary auto|float] [--head] [--no-peers] [--no-latency] [--rtx] [--count 64]
        [--tokens 4096] [--workspace DIR] [--json]

SmolLM2-135M, calibrated on WikiText-2 valid, scored by its perplexity on test (less is better),
of the neutral graph and of the engine, whose kernel rounds activations to INT8 by blocks as it
runs. int4 is of blocks of 32, with zero points as ONNX Runtime takes them, and `symmetric` as
TensorRT wants it; `bits` is what a rounded weight takes, its share of scales and zero points with
it; the output head is the embedding, in int8 unless `--vocabulary float`. `int8` rounds activations
as well (W8A8, static), and with `--head` the head too. `prompt` is the speed of 128 tokens,
`decode` that of one token after them, in times float's, interleaved in one run. Peers quantise the
same optimised graph, blocks of 32, their head in float. `--rtx` compiles the symmetric graph with
TensorRT-RTX and gives its weights' memory.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_data import MissingError, write_texts
from int8_language import read_on
from int8_methods import session
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.deploy.latency import measure
from llmdeploy.deploy.text import Encoder
from llmdeploy.toolchain import registry, stages
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, Quantize
from llmdeploy.toolchain.feeds import timed_phases
from llmdeploy.toolchain.replay import opened
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace
from weight_only_peers import PEERS

SUBJECT = next(subject for subject in SUBJECTS if subject.name == "smollm2")
LENGTH = 512
SHAPE = "1x128"
#: Of each precision the methods, and whether blocks may have zero points.
VARIANTS = {
    "w8": (("rtn", False), ("auto", False)),
    "int8": (("auto", False),),
    "int4": (("rtn", True), ("gptq", True), ("awq", True), ("auto", True), ("auto", False)),
}
COLUMNS = (
    "perplexity",
    "of_float",
    "engine",
    "bits",
    "int8_share",
    "prompt",
    "decode",
    "tokens_s",
    "size_mb",
    "rtx_mb",
    "seconds",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", action="append", choices=("w8", "int4", "int8"))
    parser.add_argument("--method", action="append", choices=("rtn", "gptq", "awq", "auto"))
    parser.add_argument("--vocabulary", default="auto", choices=("auto", "float"))
    parser.add_argument("--head", action="store_true", help="round the head as the layers are")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-latency", action="store_true", help="where others use the machine")
    parser.add_argument("--rtx", action="store_true")
    parser.add_argument("--count", type=int, default=64, help="calibration samples")
    parser.add_argument("--tokens", type=int, default=8 * LENGTH, help="tokens that are scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    for precision in asked.precision or ():
        known = {method for method, _ in VARIANTS[precision]}
        if asked.method and not known & set(asked.method):
            parser.error(f"--precision {precision} is measured by {', '.join(sorted(known))} alone")
    return asked


def run_of(
    root: Path, asked: argparse.Namespace, precision: str, method: str, *, moved: bool = False
) -> Run:
    config = Config(
        model=Model(checkpoint=SUBJECT.checkpoint(root)),
        calibration=Calibration(
            samples=str(root / "texts.jsonl"), count=asked.count, max_length=SUBJECT.max_length
        ),
        quantize=Quantize(
            method=method, zero_points=moved, vocabulary=asked.vocabulary, head=asked.head
        ),
        build=Build.model_validate(
            {"precision": precision, "options": {"onnxruntime": {"threads": asked.threads}}}
        ),
    )
    return Run(config, Workspace(root / "artifacts"))


class Table:
    """Scores what it is given against the float model of one workspace."""

    def __init__(self, run: Run, asked: argparse.Namespace) -> None:
        self.run, self.asked = run, asked
        stages.optimize(run)
        self.encoder = Encoder(run.folder("export"))
        self.answer = read_on("wikitext2.test.txt", max(1, asked.tokens // LENGTH), LENGTH)
        self.graph = run.folder("optimize") / "model.onnx"
        self.float = self.perplexity(self.graph)

    def perplexity(self, path: Path) -> float:
        """Of a graph as it is written: ONNX Runtime itself would round activations as well."""
        return float(np.exp(-self.answer(opened(path), self.encoder)["likelihoods"].mean()))

    def scored(self, path: Path) -> dict[str, float]:
        found = self.perplexity(path)
        return {"perplexity": found, "of_float": found / self.float}

    def engine(self, run: Run) -> dict[str, float]:
        """The engine's perplexity, its size, and its decode speed beside float's."""
        folder = run.folder("engine/onnxruntime")
        size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
        backend = registry.find("backends", "onnxruntime")()
        phases = {name: feeds[SHAPE] for name, feeds in timed_phases(run).items()}
        places = {"narrow": folder}
        if not self.asked.no_latency:
            places = {"fp32": run.folder(stages.float_engine(run).name), **places}
        with ExitStack() as stack:
            engines = {
                name: stack.enter_context(backend.runner(place)) for name, place in places.items()
            }
            answers = self.answer(engines["narrow"], self.encoder)
            found = {"engine": float(np.exp(-answers["likelihoods"].mean())), "size_mb": size}
            if self.asked.no_latency:
                return found
            timed = {(each.shape, each.name): each.median_ms for each in measure(engines, phases)}
        gains = {name: timed[name, "fp32"] / timed[name, "narrow"] for name in phases}
        return {
            **found,
            "prompt": gains["prefill"],
            "decode": gains["decode"],
            "tokens_s": 1000 / timed["decode", "narrow"],
        }


def ours(table: Table, root: Path, precision: str, method: str, *, moved: bool) -> dict[str, float]:
    run = run_of(root, table.asked, precision, method, moved=moved)
    stages.engine(run, "onnxruntime")
    made = run.stages["quantize"]
    told = {"bits": "bits_per_weight", "int8_share": "int8_share"}
    results = {name: made.results[key] for name, key in told.items() if key in made.results}
    found = {"seconds": made.seconds, **results}
    found |= table.scored(run.folder("quantize") / "model.onnx")
    if table.asked.rtx and not moved:
        facts = stages.engine(run, "tensorrt-rtx").results["facts"]
        found["rtx_mb"] = facts["weights_memory_bytes"] / 1e6
    return found | table.engine(run)


def rows(asked: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    root.mkdir(parents=True, exist_ok=True)
    write_texts(SUBJECT.texts(), root / "texts.jsonl")
    run = run_of(root, asked, "fp32", "auto")
    with run.workspace.locked():
        table = Table(run, asked)
        yield {"method": "float", "perplexity": table.float, "of_float": 1.0}
        for precision in asked.precision or ("w8", "int4"):
            for method, moved in VARIANTS[precision]:
                if asked.method and method not in asked.method:
                    continue
                name = f"llmdeploy {precision} {method}"
                plain = precision == "int4" and not moved
                found = ours(table, root, precision, method, moved=moved)
                yield {"method": f"{name}, symmetric" if plain else name, **found}
    for name, peer in {} if asked.no_peers else PEERS.items():
        yield {"method": name, **_peer(table, peer, root)}


def _peer(table: Table, peer: Any, root: Path) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        path = peer(table.graph, root / "peer.onnx")
        seconds = time.perf_counter() - started
        with session(path, table.asked.threads) as model:
            found = table.answer(model, table.encoder)["likelihoods"]
        return {"seconds": seconds, "engine": float(np.exp(-found.mean()))}
    except Exception as error:  # a peer's failure is its figure
        return {"reason": (str(error).splitlines() or [type(error).__name__])[0][:160]}


def line(each: dict[str, Any]) -> str:
    shown = (f"{name} {each[name]:.4g}" for name in COLUMNS if name in each)
    return f"{each['method']:30} {each.get('reason', '')}{'  '.join(shown)}"


def main() -> None:
    asked = arguments()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for each in rows(asked, asked.workspace or Path(temporary)):
                found.append({"model": SUBJECT.name, **each})
                out = sys.stderr if asked.json else sys.stdout
                print(line(each), file=out, flush=True)
        except (MissingError, Error) as error:
            found.append({"model": SUBJECT.name, "method": "all", "reason": str(error)})
            print(error, file=sys.stderr)
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment(asked)}))


def environment(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "threads": asked.threads,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "machine": platform.machine(),
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
        "tokens": asked.tokens,
        "seed": 0,
    }


if __name__ == "__main__":
    main()
