"""Graph optimisers side by side on the exports of many architectures.

    python benchmarks/passes.py [--json] [--only SUBSTRING] [--peers PYTHON] [--keep FOLDER]
                                [--large FOLDER]

`--peers` is the interpreter of an environment with onnxslim, onnxsim, onnxscript and onnxruntime:
python -m venv peers && peers/bin/pip install onnxslim onnxsim onnxscript onnxruntime. A row for
each model and method: nodes of the file, nodes that ONNX Runtime is left with, median latency on
its CPU (one thread, its own processor time, all in turn: paired.py), seconds and peak memory of
the optimiser, and whether the outputs still agree with those of the export. Models are random;
float32. ONNX Runtime opens every file with all that it does by itself, but `engine`: that is
`lowered` as our backend builds and opens it.

A second table holds ours against the best of the peers that agree: nodes as a share, times as the
median of paired ratios with its 95 % interval, under 1 is ahead. What `--keep` has is not made
again: so the second run does nothing but time. `--large` optimises a Llama of
1.1B parameters exported there instead, 15 GB; an optimiser is stopped after `--limit` seconds.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from coverage import feed, graphs
from llmdeploy import __version__
from llmdeploy.passes.contract import CLOSE, compare
from llmdeploy.toolchain.exporter import export
from optimisers import PEERS, engine, kernels, lowered, nodes, optimised, session
from paired import ROUNDS, Times, ratio, rounds
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
METHODS = ("export", "llmdeploy", "lowered", "engine", *PEERS)
HEADS = (
    "model", "method", "nodes", "kernels", "latency_ms", "step_ms", "seconds", "MB", "agrees",
)  # fmt: skip
#: A share, ours of which, against which peers: nodes of standard operators where all keep to
#: those, then what ONNX Runtime really runs, its own fused operators included.
COUNTS = (("nodes", "llmdeploy", PEERS[:3]), ("kernels", "engine", PEERS))
#: A ratio of times: under this name, ours of which, on which shape.
TIMES = (
    ("graph", "lowered", "latency_ms"),
    ("engine", "engine", "latency_ms"),
    ("graph step", "lowered", "step_ms"),
    ("engine step", "engine", "step_ms"),
)
LIMIT = 1800.0
Arrays = dict[str, np.ndarray]


def run(opened: ort.InferenceSession, inputs: Arrays) -> Arrays:
    """The outputs by name."""
    names = [output.name for output in opened.get_outputs()]
    taken = {value.name: inputs[value.name] for value in opened.get_inputs()}
    return dict(zip(names, opened.run(names, taken), strict=True))


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


def made(method: str, source: Path, aside: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Let one method make its file; the figures of that, and where it is."""
    target, noted = aside / method / "model.onnx", aside / f"{method}.json"
    if method == "export":
        return {"seconds": None, "path": source}
    if noted.is_file():
        return json.loads(noted.read_text()) | {"path": target}
    shutil.rmtree(target.parent, ignore_errors=True)  # of a run that was killed
    if method == "lowered":
        figures = lowered(aside / "llmdeploy" / "model.onnx", target)
    elif method == "engine":
        figures = engine(aside / "lowered" / "model.onnx", target)
    else:
        figures = optimised(method, source, target, asked.peers, asked.limit)
    noted.write_text(json.dumps(figures))
    return figures | {"path": target}


def compared(
    model: str, source: Path, signature: Any, aside: Path, asked: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of one graph, and its verdict."""
    feeds = [feed(signature, sizes, 2000) for sizes in GRID]
    cached = any(tensor.role.startswith("past") for tensor in signature.inputs)
    times: dict[str, dict[str, Times]] = {}
    rows: dict[str, dict[str, Any]] = {}
    opened: dict[str, ort.InferenceSession] = {}
    for method in METHODS:
        figures = made(method, source, aside, asked)
        path = figures.pop("path")
        rows[method] = {"model": model, "method": method, **figures}
        if "reason" not in figures:
            rows[method] |= {"nodes": nodes(path), "kernels": kernels(method, path)}
            opened[method] = session(method, path)
    wanted = [run(opened["export"], each) for each in feeds]
    for method, each in list(opened.items()):
        rows[method] |= agreement(each, feeds, wanted)
        if "broken" in rows[method]:
            del opened[method]
    for name, inputs in (("latency_ms", feeds[0]), ("step_ms", feeds[1]))[: 1 + cached]:
        runs = {method: partial(run, each, inputs) for method, each in opened.items()}
        times[name] = rounds(runs, asked.rounds)
        for method, taken in times[name].items():
            rows[method][name] = round(float(np.median(taken)), 3)
    return list(rows.values()), verdict(model, rows, times)


def verdict(
    model: str, rows: dict[str, dict[str, Any]], times: dict[str, dict[str, Times]]
) -> dict[str, Any]:
    """Ours against the best peer that agrees."""
    line: dict[str, Any] = {"model": model, "agrees": all(r.get("agrees") for r in ours(rows))}
    for key, method, among in COUNTS:
        theirs = [rows[name][key] for name in among if rows[name].get("agrees")]
        mine = rows[method].get(key)
        line[key] = round(mine / min(theirs), 2) if theirs and mine else None
    for key, method, figure in TIMES:
        theirs = [name for name in PEERS if rows[name].get("agrees") and figure in rows[name]]
        if theirs and figure in rows[method]:
            best = min(theirs, key=lambda name: rows[name][figure])
            found = ratio(times[figure][method], times[figure][best])
            line |= {key: str(found), f"{key} best": best, f"{key} is": found.call}
    return line


def ours(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that are not a peer's."""
    return [row for method, row in rows.items() if method not in PEERS]


def models(only: str, keep: Path | None) -> Iterator[tuple[str, Path, Any, Path]]:
    """Every graph of every architecture, exported aside, with a folder for what is made of it."""
    for tiny in MODELS:
        if only.lower() not in tiny.architecture.lower():
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = keep / tiny.architecture if keep else Path(name)
            exported = folder / "export"
            if not exported.is_dir():
                save(tiny, folder / "checkpoint")
                exported.mkdir()
                export(str(folder / "checkpoint"), exported)
            for part, path, signature in graphs(exported):
                aside = folder / "made" / (part or "model")
                aside.mkdir(parents=True, exist_ok=True)
                yield f"{tiny.architecture}{f'/{part}' if part else ''}", path, signature, aside


def large(folder: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The optimisers on 1.1B parameters: seconds, memory and nodes; too large to time here."""
    checkpoint, exported = folder / "checkpoint", folder / "export"
    if not checkpoint.is_dir():
        save(LLAMA, checkpoint)
    if not exported.is_dir():
        exported.mkdir()
        export(str(checkpoint), exported)
    for method in ("llmdeploy", *PEERS[:3]):
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            target, source = Path(aside) / method / "model.onnx", exported / "model.onnx"
            figures = optimised(method, source, target, asked.peers, asked.limit)
            left = nodes(target) if "reason" not in figures else None
            yield {"model": "Llama 1.1B", "method": method, **figures, "nodes": left}


def table(rows: Sequence[dict[str, Any]], heads: Sequence[str]) -> str:
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
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--large", type=Path, metavar="FOLDER")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of one optimiser")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    for model, *graph in () if asked.large else models(asked.only, asked.keep):
        found, line = compared(model, *graph, asked)
        rows += found
        verdicts.append(line)
        print(model, file=sys.stderr)
    rows += large(asked.large, asked) if asked.large else []
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
        print(json.dumps({"rows": rows, "verdicts": verdicts, "environment": environment}))
        return
    print(table(rows, HEADS))
    if verdicts:
        print("\nours against the best peer that agrees: shares, and median ratios of paired times")
        names = (*(key for key, *_ in COUNTS), *(key for key, *_ in TIMES))
        print(table(verdicts, ("model", *names, "agrees")))
        calls = [line[f"{key} is"] for line in verdicts for key, *_ in TIMES if f"{key} is" in line]
        print(", ".join(f"{calls.count(each)} {each}" for each in ("ahead", "equal", "behind")))


if __name__ == "__main__":
    main()
