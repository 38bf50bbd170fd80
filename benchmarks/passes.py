"""Graph optimisers side by side on the exports of many architectures.

    python benchmarks/passes.py [--json] [--only SUBSTRING] [--peers PYTHON] [--large FOLDER]

`--peers` is the interpreter of an environment with onnxslim, onnxsim, onnxscript and onnxruntime:
python -m venv peers && peers/bin/pip install onnxslim onnxsim onnxscript onnxruntime. A row for
each model and method: nodes of the file, nodes that ONNX Runtime is left with, least latency on
its CPU with everything it does by itself (all methods interleaved; one thread, its own processor
time, so that other work on the machine hardly counts), seconds and peak memory of the optimiser,
and whether the outputs still agree with those of the export. Models are random; float32. A second
table holds ours, lowered, against the best of the peers that agree. `--large` also exports and
optimises a Llama of 1.1B parameters there, 15 GB.
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from coverage import feed, graphs
from llmdeploy import __version__
from llmdeploy.passes.contract import CLOSE, compare
from llmdeploy.toolchain.exporter import export
from sized import LLAMA, MODELS, save

#: What each graph is timed on: a usual input, and for a decoder one step with a filled cache.
SHAPES: tuple[dict[str, Any], ...] = (
    {"batch": 1, "sequence": 64, "past": 0, "source": 64, "side": "right"},
    {"batch": 1, "sequence": 1, "past": 128, "source": 64, "side": "right"},
)
#: What outputs are compared on, beside: batches, odd sizes, padding.
GRID: tuple[dict[str, Any], ...] = (
    *SHAPES,
    {"batch": 3, "sequence": 7, "past": 5, "source": 5, "side": "left"},
    {"batch": 2, "sequence": 1, "past": 13, "source": 9, "side": "right"},
)
OURS = ("export", "llmdeploy", "lowered")
HEADS = (
    "model", "method", "nodes", "kernels", "latency_ms", "step_ms", "seconds", "MB", "agrees",
)  # fmt: skip
PEERS = ("onnxslim", "onnxsim", "onnxscript", "onnxruntime")
#: A figure, ours of which, against which peers: nodes of standard operators where all keep to
#: those, then what ONNX Runtime really runs, its own fused operators included.
VERDICTS = (
    ("nodes", "llmdeploy", PEERS[:3]),
    ("kernels", "lowered", PEERS),
    ("latency_ms", "lowered", PEERS),
    ("step_ms", "lowered", PEERS),
)
ROUNDS = 25
Arrays = dict[str, np.ndarray]


def optimised(method: str, source: Path, target: Path, peers: str | None) -> dict[str, Any]:
    """Run one optimiser in a process of its own; its figures, or why there are none."""
    target.parent.mkdir(parents=True)
    python = peers if method in PEERS else sys.executable
    if python is None:
        return {"reason": "no --peers"}
    script = Path(__file__).with_name("simplify.py")
    command = [python, str(script), method, str(source), str(target)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800)
    if done.returncode or not target.is_file():
        lines = done.stderr.strip().splitlines() or ["no output"]
        return {"reason": f"failed: {lines[-1][:160]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def lowered(source: Path, target: Path) -> dict[str, Any]:
    """Our graph as our own ONNX Runtime backend lowers it."""
    from llmdeploy.deploy.ort import OnnxRuntime
    from llmdeploy.passes import PassManager, load
    from llmdeploy.passes import save as write

    started = time.perf_counter()
    model, _ = PassManager(OnnxRuntime().lowering("fp32"), prove=False).run(load(source))
    write(model, target.parent)
    return {"seconds": round(time.perf_counter() - started, 3), "peak_memory_bytes": None}


def session(path: Path) -> ort.InferenceSession:
    """A session as a user opens it: everything ONNX Runtime does by itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(opened: ort.InferenceSession, inputs: Arrays) -> Arrays:
    """The outputs by name."""
    names = [output.name for output in opened.get_outputs()]
    taken = {value.name: inputs[value.name] for value in opened.get_inputs()}
    return dict(zip(names, opened.run(names, taken), strict=True))


def nodes(path: Path) -> int:
    """Nodes of a file, constants aside."""
    model = onnx.load(path, load_external_data=False)
    return sum(node.op_type != "Constant" for node in model.graph.node)


def kernels(path: Path) -> int:
    """Nodes that ONNX Runtime is left with after all of its own optimisations."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return nodes(Path(folder) / "model.onnx")


def latencies(
    opened: Mapping[str, ort.InferenceSession], inputs: Arrays, rounds: int
) -> dict[str, float]:
    """Least milliseconds of processor time of each session, all in turn: noise only adds."""
    taken: dict[str, list[float]] = {method: [] for method in opened}
    methods, shuffle = list(opened), random.Random(0)
    for _ in range(rounds):
        shuffle.shuffle(methods)
        for method in methods:
            started = time.thread_time()
            run(opened[method], inputs)
            taken[method].append((time.thread_time() - started) * 1e3)
    return {method: round(min(times), 3) for method, times in taken.items()}


def agreement(
    opened: ort.InferenceSession, feeds: list[Arrays], wanted: list[Arrays]
) -> dict[str, Any]:
    """Whether the outputs are the export's on every feed; a graph that cannot be run is broken."""
    try:
        worst = [
            compare(CLOSE, one, run(opened, two)) for one, two in zip(wanted, feeds, strict=True)
        ]
    except Exception as error:
        return {"agrees": False, "broken": " ".join(str(error).split())[:160]}
    agrees = not any(item.broken for item in worst)
    return {"agrees": agrees, "error": max(item.error for item in worst)}


def compared(
    model: str, source: Path, signature: Any, peers: str | None, rounds: int
) -> Iterator[dict[str, Any]]:
    """The rows of one graph."""
    feeds = [feed(signature, sizes, 2000) for sizes in GRID]
    cached = any(tensor.role.startswith("past") for tensor in signature.inputs)
    with tempfile.TemporaryDirectory() as aside:
        rows, opened = {}, {}
        for method in (*OURS, *PEERS):
            target = Path(aside) / method / "model.onnx"
            if method == "export":
                target, made = source, {"seconds": None, "peak_memory_bytes": None}
            elif method == "lowered":
                target.parent.mkdir()
                made = lowered(Path(aside) / "llmdeploy" / "model.onnx", target)
            else:
                made = optimised(method, source, target, peers)
            rows[method] = {"model": model, "method": method, **made}
            if "reason" in made:
                continue
            rows[method] |= {"nodes": nodes(target), "kernels": kernels(target)}
            opened[method] = session(target)
        wanted = [run(opened["export"], each) for each in feeds]
        for method, each in list(opened.items()):
            rows[method] |= agreement(each, feeds, wanted)
            if "broken" in rows[method]:
                del opened[method]
        for name, inputs in (("latency_ms", feeds[0]), ("step_ms", feeds[1]))[: 1 + cached]:
            for method, value in latencies(opened, inputs, rounds).items():
                rows[method][name] = value
        yield from rows.values()


def models(only: str) -> Iterator[tuple[str, Path, Any]]:
    """Every graph of every architecture, exported aside."""
    for tiny in MODELS:
        if only.lower() not in tiny.architecture.lower():
            continue
        with tempfile.TemporaryDirectory() as name:
            checkpoint, folder = Path(name) / "checkpoint", Path(name) / "export"
            folder.mkdir()
            save(tiny, checkpoint)
            export(str(checkpoint), folder)
            for part, path, signature in graphs(folder):
                yield f"{tiny.architecture}{f'/{part}' if part else ''}", path, signature


def large(folder: Path, peers: str | None) -> Iterator[dict[str, Any]]:
    """The optimisers on 1.1B parameters: seconds, memory and nodes; too large to time here."""
    checkpoint, made = folder / "checkpoint", folder / "export"
    if not checkpoint.is_dir():
        save(LLAMA, checkpoint)
    if not made.is_dir():
        made.mkdir()
        export(str(checkpoint), made)
    for method in ("llmdeploy", *PEERS[:3]):
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            target = Path(aside) / method / "model.onnx"
            figures = optimised(method, made / "model.onnx", target, peers)
            left = nodes(target) if "reason" not in figures else None
            yield {"model": "Llama 1.1B", "method": method, **figures, "nodes": left}


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours against the best peer that agrees: nodes and times as shares; under 1 is ahead."""
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = {row["method"]: row for row in rows if row["model"] == model}
        line: dict[str, Any] = {"model": model, "agrees": mine["llmdeploy"].get("agrees")}
        for key, method, among in VERDICTS:
            peers = [row for name, row in mine.items() if name in among and row.get("agrees", True)]
            theirs = [row[key] for row in peers if row.get(key)]
            ours = mine.get(method, {}).get(key)
            line[key] = round(ours / min(theirs), 2) if theirs and ours else None
        found.append(line)
    return found


def table(rows: list[dict[str, Any]], heads: Sequence[str]) -> str:
    """The rows for people."""
    lines = [tuple(heads)]
    for row in rows:
        peak = row.get("peak_memory_bytes")
        shown = {**row, "MB": round(peak / 2**20) if peak else None}
        cells = [
            row["reason"] if key == "nodes" and "reason" in row else shown.get(key) for key in heads
        ]
        lines.append(tuple("-" if cell is None else str(cell) for cell in cells))
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--large", type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model, path, signature in models(asked.only):
        rows.extend(compared(model, path, signature, asked.peers, asked.rounds))
        print(model, file=sys.stderr)
    if asked.large:
        rows.extend(large(asked.large, asked.peers))
    environment = {
        "llmdeploy": __version__,
        "onnxruntime": ort.__version__,
        "onnx": onnx.__version__,
        "python": platform.python_version(),
        "threads": 1,
        "rounds": asked.rounds,
        "dtype": "float32",
    }
    if asked.json:
        print(json.dumps({"rows": rows, "verdicts": verdicts(rows), "environment": environment}))
    else:
        print(table(rows, HEADS))
        print("\nours against the best peer that agrees, as a share of its figure")
        print(table(verdicts(rows), ("model", *(key for key, *_ in VERDICTS), "agrees")))


if __name__ == "__main__":
    main()
