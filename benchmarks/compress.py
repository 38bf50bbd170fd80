"""What pruning costs and gains on real models, magnitude pruning beside it.

    python benchmarks/compress.py [SUBJECT...] [--speedups 1.6 2.0] [--int8] [--json]

Subjects: minilm (planned on STS 2014, scored on STS 2015 by Spearman) and sst2 (planned on train,
scored on test by accuracy), as in int8_accuracy.py. `prune S` meets S times the float speed by
widths that differ by layer; `uniform` takes half of the neurons and a quarter of the heads of every
layer, by second order with correction, by Wanda, and by magnitude. Nothing is trained.
`latency_ratio` is float's time over the engine's at 1x128 on one thread, each the least CPU time of
runs in turns; `wall_ratio` that of medians of wall time. `of_float` is the score over float's.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from int8_data import Answers, MissingError, Subject, write_texts
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.deploy.latency import measure
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.text import Encoder
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.compress.table import least
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, PassTable
from llmdeploy.toolchain.feeds import timed_feeds
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Stage, Workspace

COLUMNS = ("score", "of_float", "latency_ratio", "wall_ratio", "size_ratio", "loss", "seconds")
HALF = {"neurons": 0.5, "heads": 0.25, "max_drop": 0.99}
SHAPE = "1x128"


@dataclass(frozen=True)
class Method:
    """A row: its name, the options of `prune` (none for float) and the precision."""

    name: str
    options: dict[str, Any] | None = None
    precision: Any = "fp32"


def methods(asked: argparse.Namespace) -> list[Method]:
    bare = {"method": "magnitude", "correct": False}
    made = [
        Method("uniform magnitude", {**HALF, **bare}),
        Method("uniform wanda", {**HALF, **bare, "method": "wanda"}),
        Method("uniform second-order", {**HALF, "correct": False}),
        Method("uniform corrected", HALF),
    ]
    for speed in asked.speedups:
        options = {"speedup": speed, "max_drop": 0.99, "minutes": asked.minutes}
        made.append(Method(f"prune {speed:g}", options))
        if asked.int8:
            made.append(Method(f"prune {speed:g} + int8", options, "int8"))
    found = [*made, *([Method("int8", None, "int8")] if asked.int8 else [])]
    return [each for each in found if not asked.methods or each.name in asked.methods]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=["minilm", "sst2"], metavar="SUBJECT")
    parser.add_argument("--speedups", nargs="*", type=float, default=[1.6, 2.0])
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="these rows and float's")
    parser.add_argument("--count", type=int, default=2000, help="samples to plan on")
    parser.add_argument("--minutes", type=float, default=2.0, help="for losses of single layers")
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def release(subject: Subject, method: Method, root: Path, asked: argparse.Namespace) -> Run:
    plain = [PassTable(use=name) for name in ("clean", "fold", "fuse", "clean")]
    fitted = [] if method.options is None else [PassTable(use="prune", **method.options)]
    config = Config(
        model=Model(checkpoint=subject.checkpoint(root)),
        passes=(*plain, *fitted),
        calibration=Calibration(
            samples=str(root / "texts.jsonl"),
            count=asked.count,
            max_length=subject.max_length,
            batch=16,
        ),
        build=Build(precision=method.precision, options={"onnxruntime": {"threads": 1}}),
    )
    return Run(config, Workspace(root / "artifacts"))


def rows(subject: Subject, root: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    root.mkdir(parents=True, exist_ok=True)
    write_texts(subject.texts(), root / "texts.jsonl")
    wanted: Answers | None = None
    for method in (Method("float"), *methods(asked)):
        run = release(subject, method, root, asked)
        with run.workspace.locked():
            try:
                yield (found := _row(subject, method, run, wanted))
            except Error as error:
                yield {"model": subject.name, "method": method.name, "reason": str(error)}
                continue
        wanted = wanted or found.pop("answers")


def _row(subject: Subject, method: Method, run: Run, wanted: Answers | None) -> dict[str, Any]:
    started = time.perf_counter()
    engine, dense = stages.engine(run, "onnxruntime"), stages.float_engine(run)
    seconds = time.perf_counter() - started
    encoder, backend = Encoder(run.folder("export")), OnnxRuntime()
    with backend.runner(run.folder(engine.name)) as call:
        answers = subject.answer(call, encoder)
    found = subject.score(answers, wanted or answers)
    scored = {"score": found["score"], "of_float": found["of_float"]}
    row = {"model": subject.name, "method": method.name, "metric": found["score"]}
    row |= {
        "float_metric": found["score"] / found["of_float"],
        **scored,
        **_speeds(run, engine, dense),
    }
    loss = run.stages["compress"].results["loss"] if "compress" in run.stages else 0.0
    row |= {"loss": loss, "seconds": round(seconds, 1)}
    return row if wanted else {**row, "answers": answers}


def _speeds(run: Run, engine: Stage, dense: Stage) -> dict[str, float]:
    backend, feed = OnnxRuntime(), timed_feeds(run)[SHAPE]
    with (
        backend.runner(run.folder(dense.name)) as one,
        backend.runner(run.folder(engine.name)) as two,
    ):
        slow, fast = least((one, two), feed, 12.0)
        _, timing = measure({"float": one, "this": two}, {SHAPE: feed}, budget_s=6.0)
    size = run.workspace.size(engine.name) / run.workspace.size(dense.name)
    return {"latency_ratio": slow / fast, "wall_ratio": timing.speedup, "size_ratio": size}


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    stream = sys.stderr if asked.json else sys.stdout
    with tempfile.TemporaryDirectory() as temporary:
        for subject in (each for each in SUBJECTS if each.name in asked.subjects):
            root = (asked.workspace or Path(temporary)) / subject.name
            try:
                for row in rows(subject, root, asked):
                    found.append({key: row[key] for key in row if key != "answers"})
                    print(line(found[-1]), file=stream, flush=True)
            except MissingError as error:
                found.append({"model": subject.name, "method": "all", "reason": str(error)})
                print(line(found[-1]), file=stream, flush=True)
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment(asked)}))


def line(row: dict[str, Any]) -> str:
    head = f"{row['model']:8} {row['method']:22}"
    if "reason" in row:
        return f"{head} {row['reason']}"
    return f"{head} {'  '.join(f'{name} {row[name]:.4g}' for name in COLUMNS)}"


def environment(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "threads": 1,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "machine": platform.machine(),
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
        "samples": asked.count,
        "seed": 0,
    }


if __name__ == "__main__":
    main()
