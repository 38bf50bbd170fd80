"""What pruning costs and gains on real models, magnitude pruning beside it.

    python benchmarks/compress.py [SUBJECT...] [--speedups 1.6 2.0] [--int8] [--recover MINUTES]
        [--onnxsim PYTHON] [--json]

Subjects: minilm (planned on STS 2014, scored on STS 2015 by Spearman) and sst2 (planned on train,
scored on test by accuracy), as in int8_accuracy.py. `prune S` meets S times the float speed by
widths that differ by layer; `uniform` takes half of the neurons and a quarter of the heads of every
layer, by second order with correction, by Wanda, and by magnitude. Nothing is trained but in rows
with `+ recover`: the pruned model, as long as asked, on the dense one's outputs for the same texts.
`onnxsim` is that package's own structured pruning of the same graph by the same shares, run by an
interpreter that has it; its row says of how many weights it took anything.
`latency_ratio` is float's time over the engine's at 1x128 on one thread, each the least CPU time of
runs in turns; `wall_ratio` that of medians of wall time. `of_float` is the score over float's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_data import Answers, MissingError, Subject, write_texts
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.latency import measure
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.text import Encoder
from llmdeploy.passes import PassManager, load, save
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.compress.table import least
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, PassTable
from llmdeploy.toolchain.feeds import calibration_feeds, timed_feeds
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

COLUMNS = ("score", "of_float", "latency_ratio", "wall_ratio", "size_ratio", "loss", "seconds")
HALF = {"neurons": 0.5, "heads": 0.25, "max_drop": 0.99}
SHAPE = "1x128"
PEER = ("magnitude", "wanda")


@dataclass(frozen=True)
class Method:
    """A row: its name, the options of `prune` (none for float), the precision, what follows."""

    name: str
    options: dict[str, Any] | None = None
    precision: Any = "fp32"
    recover: float | None = None


def methods(asked: argparse.Namespace) -> list[Method]:
    bare = {"method": "magnitude", "correct": False}
    made = [
        Method("uniform magnitude", {**HALF, **bare}),
        Method("uniform wanda", {**HALF, **bare, "method": "wanda"}),
        Method("uniform second-order", {**HALF, "correct": False}),
        Method("uniform corrected", HALF),
    ]
    if asked.recover:
        made.append(Method("uniform corrected + recover", HALF, recover=asked.recover))
    for speed in asked.speedups:
        options = {"speedup": speed, "max_drop": 0.99, "minutes": asked.minutes}
        made.append(Method(f"prune {speed:g}", options))
        if asked.recover:
            made.append(Method(f"prune {speed:g} + recover", options, recover=asked.recover))
        if asked.int8:
            made.append(Method(f"prune {speed:g} + int8", options, "int8"))
    found = [*made, *([Method("int8", None, "int8")] if asked.int8 else [])]
    return [each for each in found if not asked.methods or each.name in asked.methods]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=["minilm", "sst2"], metavar="SUBJECT")
    parser.add_argument("--speedups", nargs="*", type=float, default=[1.6, 2.0])
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--recover", type=float, metavar="MINUTES", help="rows with recovery too")
    parser.add_argument("--onnxsim", metavar="PYTHON", help="an interpreter that has onnxsim")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="these rows and float's")
    parser.add_argument("--count", type=int, default=2000, help="samples to plan on")
    parser.add_argument("--minutes", type=float, default=2.0, help="for losses of single layers")
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def release(subject: Subject, method: Method, root: Path, asked: argparse.Namespace) -> Run:
    plain = [PassTable(use=name) for name in ("clean", "fold", "fuse", "clean")]
    fitted = [] if method.options is None else [PassTable(use="prune", **method.options)]
    if method.recover:
        fitted.append(PassTable.model_validate({"use": "recover", "minutes": method.recover}))
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
        if method.name == "float" and asked.onnxsim:
            yield from (peer(subject, run, wanted, asked.onnxsim, each) for each in PEER)


def peer(subject: Subject, run: Run, wanted: Answers, python: str, method: str) -> dict[str, Any]:
    """The optimised graph pruned by onnxsim, built and measured as ours are."""
    started, backend = time.perf_counter(), OnnxRuntime()
    with tempfile.TemporaryDirectory() as aside:
        folder, feeds = Path(aside), calibration_feeds(run).fit[:8]
        arrays = {f"{at}/{name}": each[name] for at, each in enumerate(feeds) for name in each}
        np.savez(folder / "feeds.npz", **arrays)
        dense, made = run.folder("optimize") / "model.onnx", folder / "model.onnx"
        shares = [str(HALF["neurons"]), str(HALF["heads"])]
        script = Path(__file__).with_name("compress_peer_onnxsim.py")
        command = [python, str(script), str(dense), str(made), str(folder / "feeds.npz"), method]
        done = subprocess.run([*command, *shares], capture_output=True, text=True, check=False)
        name = {"model": subject.name, "method": f"onnxsim {method}"}
        if done.returncode:
            return {**name, "reason": done.stderr.strip().splitlines()[-1]}
        seconds, said = time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])
        model, _ = PassManager(list(backend.lowering("fp32"))).run(load(made))
        save(model, folder / "lowered")
        backend.build(
            folder / "lowered" / "model.onnx", folder / "engine", Profile(), {"threads": 1}
        )
        with backend.runner(folder / "engine") as call:
            answers = subject.answer(call, Encoder(run.folder("export")))
        row = _scored(subject, answers, wanted) | _speeds(run, folder / "engine")
    return {**name, **row, **said, "loss": float("nan"), "seconds": round(seconds, 1)}


def _scored(subject: Subject, answers: Answers, wanted: Answers) -> dict[str, Any]:
    found = subject.score(answers, wanted)
    return {
        "metric": found["score"],
        "float_metric": found["score"] / found["of_float"],
        "score": found["score"],
        "of_float": found["of_float"],
    }


def _row(subject: Subject, method: Method, run: Run, wanted: Answers | None) -> dict[str, Any]:
    started = time.perf_counter()
    engine, _ = stages.engine(run, "onnxruntime"), stages.float_engine(run)
    seconds = time.perf_counter() - started
    encoder, backend = Encoder(run.folder("export")), OnnxRuntime()
    with backend.runner(run.folder(engine.name)) as call:
        answers = subject.answer(call, encoder)
    row = {"model": subject.name, "method": method.name}
    row |= _scored(subject, answers, wanted or answers) | _speeds(run, run.folder(engine.name))
    loss = run.stages["compress"].results["loss"] if "compress" in run.stages else 0.0
    row |= {"loss": loss, "seconds": round(seconds, 1)}
    return row if wanted else {**row, "answers": answers}


def _speeds(run: Run, engine: Path) -> dict[str, float]:
    backend, feed, dense = OnnxRuntime(), timed_feeds(run)[SHAPE], stages.float_engine(run)
    with backend.runner(run.folder(dense.name)) as one, backend.runner(engine) as two:
        slow, fast = least((one, two), feed, 12.0)
        _, timing = measure({"float": one, "this": two}, {SHAPE: feed}, budget_s=6.0)
    size = sum(path.stat().st_size for path in engine.rglob("*") if path.is_file())
    return {
        "latency_ratio": slow / fast,
        "wall_ratio": timing.speedup,
        "size_ratio": size / run.workspace.size(dense.name),
    }


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
    head = f"{row['model']:8} {row['method']:27}"
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
