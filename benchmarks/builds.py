"""Which architectures build at which precisions, gates and all: the truth, failures included.

    python benchmarks/builds.py [--precision P]... [--only SUBSTRING] [--markdown FILE] [--json]

Every model is tiny and random (architectures.py): what breaks here breaks by its structure. Each is
exported once and then built as `llmdeploy build --precision P` does, on 32 random samples of 12
tokens, ONNX Runtime, nothing set: `pass` is exit code 0, so that every step held its parity and the
engine stores what was asked for. `kept` is the share of the weight MatMuls' multiply-adds that
INT8 left in float, output heads apart. What does not export has no row: coverage.py lists it.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from architectures import TINY, Tiny
from coverage import feed
from llmdeploy import Error
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain import cli, stages
from llmdeploy.toolchain.config import Config, Model
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

PRECISIONS = ("int8", "w8", "int4", "fp16")
SIZES = {"batch": 32, "sequence": 12, "past": 0, "source": 12, "side": "right"}


def rows(tiny: Tiny, precisions: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tiny.save(root / "checkpoint")
        run = Run(
            Config(model=Model(checkpoint=str(root / "checkpoint"))), Workspace(root / "artifacts")
        )
        try:
            with run.workspace.locked():
                stages.export(run)
        except Error:
            return
        samples(root, run)
        for precision in precisions:
            made = {"model": tiny.architecture, "task": tiny.task, "method": precision}
            yield {**made, **built(root, precision)}


def samples(root: Path, run: Run) -> None:
    """Rows of what the first graph takes; caches, positions and later graphs' feeds are ours."""
    known = Signature.load(run.folder("export", run.graphs[0]))
    config = json.loads((root / "checkpoint/config.json").read_text())
    made = feed(known, SIZES, config.get("vocab_size") or 99)
    taken: dict[str, Any] = {
        each.name: made[each.name]
        for each in known.inputs
        if each.shape[:1] == ("batch",) and not each.role.startswith(("past", "position"))
    }
    np.savez(root / "samples.npz", **taken)
    (root / "llmdeploy.toml").write_text(
        f'[model]\ncheckpoint = "{root}/checkpoint"\n[calibration]\nsamples = "samples.npz"\n'
    )


def built(root: Path, precision: str) -> dict[str, Any]:
    """Exit code, time, and what failed, in the command's own words."""
    where = ["-c", str(root / "llmdeploy.toml"), "-w", str(root / "artifacts"), "--json"]
    out, words, started = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(words):
        try:
            code = cli.call(["build", "--precision", precision, *where])
        except Exception as crash:  # a traceback is a bug, and a row
            code, out = -1, io.StringIO(f'{{"error": "{type(crash).__name__}: {crash}"}}')
    seconds = round(time.perf_counter() - started, 1)
    found = {"works": code == 0, "exit": code, "seconds": seconds}
    if code:
        return {**found, "reason": reason(out.getvalue(), words.getvalue())}
    return {**found, "kept": kept(root) if precision == "int8" else None}


def reason(out: str, words: str) -> str:
    with contextlib.suppress(ValueError):
        gates = json.loads(out).get("gates", [])
        failed = [f"{each['name']}: {each['reason']}" for each in gates if each["status"] == "fail"]
        if failed:
            return failed[0][:200]
    lines = [line for line in (out + words).splitlines() if line.strip()]
    return (lines or ["nothing said"])[-1][:200]


def kept(root: Path) -> float:
    """The share of multiply-adds that could be INT8 and are float."""
    layers = [
        layer
        for path in sorted((root / "artifacts/quantize").rglob("stage.json"))
        for layer in found_layers(json.loads(path.read_text())["results"])
    ]
    able = [layer for layer in layers if layer["int8"] or layer["snr_db"] is not None]
    total = sum(layer["macs"] for layer in able)
    return sum(layer["macs"] for layer in able if not layer["int8"]) / total if total else 0.0


def found_layers(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of one graph, or of all graphs of a stage."""
    if "layers" in results:
        return results["layers"]
    inner = [each for each in results.values() if isinstance(each, dict)]
    return [layer for each in inner for layer in found_layers(each)]


def table(found: list[dict[str, Any]], precisions: tuple[str, ...]) -> str:
    lines = [
        f"| architecture | task | {' | '.join(precisions)} |",
        f"|---|---|{'---|' * len(precisions)}",
    ]
    models = dict.fromkeys((each["model"], each["task"]) for each in found)
    for model, task in models:
        mine = {each["method"]: each for each in found if each["model"] == model}
        cells = " | ".join(cell(mine.get(name)) for name in precisions)
        lines.append(f"| {model} | {task} | {cells} |")
    bad = [each for each in found if not each["works"]]
    if bad:
        lines += ["", "| does not build | precision | exit code | why |", "|---|---|---|---|"]
        for each in bad:
            why = " ".join(each["reason"].split()).replace("|", "/")
            lines.append(f"| {each['model']} | {each['method']} | {each['exit']} | {why} |")
    counts = (f"{sum(e['works'] for e in found if e['method'] == p)} {p}" for p in precisions)
    return "\n".join([*lines, "", f"Of {len(models)} pass: {', '.join(counts)}."])


def cell(each: dict[str, Any] | None) -> str:
    if each is None:
        return ""
    if not each["works"]:
        return "fails"
    share = each.get("kept") or 0
    return f"pass, {share:.0%} kept float" if share >= 0.005 else "pass"


def main() -> None:
    import onnxruntime
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", action="append")
    parser.add_argument("--only", default="")
    parser.add_argument("--markdown", type=Path, help="write the table there, as a page")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    precisions, found = tuple(asked.precision or PRECISIONS), list[dict[str, Any]]()
    for tiny in TINY:
        if asked.only.lower() in f"{tiny.architecture} {tiny.task}".lower():
            for each in rows(tiny, precisions):
                found.append(each)
                print(json.dumps(each), file=sys.stderr, flush=True)
    packages = (torch, transformers, onnxruntime)
    environment = {one.__name__: one.__version__ for one in packages}
    if asked.markdown:
        words = " ".join((__doc__ or "").split("\n\n")[2].split())
        told = ", ".join(f"{name} {version}" for name, version in environment.items())
        head = f"# Which architectures build at which precisions\n\n{words}\n\n"
        asked.markdown.write_text(f"{head}{table(found, precisions)}\n\n{told}.\n", "utf-8")
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment}))
    else:
        print(table(found, precisions))


if __name__ == "__main__":
    main()
