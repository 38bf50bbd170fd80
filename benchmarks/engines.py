"""Which architectures become engines: run on ONNX Runtime, compiled for TensorRT-RTX.

    python benchmarks/engines.py [--json] [--only SUBSTRING]

Every model is tiny and random (architectures.py). Each graph of an export is optimised, lowered and
built; the ONNX Runtime engine's outputs are held against the optimised graph's on coverage.py's
grid of shapes. A TensorRT-RTX engine is compiled on the CPU, and not executed.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
from architectures import TINY, Tiny
from coverage import GRID, feed
from llmdeploy import Error
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.bisect import relative_error
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.signature import Signature
from llmdeploy.deploy.trt import TensorRtRtx
from llmdeploy.passes import PassManager, load, save
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.exporter import export
from llmdeploy.toolchain.replay import replay
from llmdeploy.toolchain.stages import make_pass

TOLERANCE = 1e-4
#: Sizes for TensorRT where a handful is too few for the convolutions before the transformer.
LENGTHS = {"samples": (900, 1800, 3600), "frames": (16, 37, 80)}


def check(tiny: Tiny, folder: Path) -> Iterator[dict[str, Any]]:
    """A row a graph of one architecture's export."""
    tiny.save(folder / "checkpoint")
    export(str(folder / "checkpoint"), folder / "export", task=tiny.task)
    for path in sorted((folder / "export").rglob("model.onnx")):
        part = path.parent.relative_to(folder / "export").as_posix()
        row = {"model": tiny.architecture, "method": tiny.task, "graph": part}
        yield row | graph(path, folder / "work" / part)


def graph(path: Path, folder: Path) -> dict[str, Any]:
    signature = Signature.load(path.parent)
    neutral, lowered = folder / "neutral", folder / "lowered"
    write(path, neutral, [make_pass(table) for table in Config().passes])
    nodes, fused = write(neutral / "model.onnx", lowered, OnnxRuntime().lowering("fp32"))
    return {
        "nodes": nodes,
        "attentions": fused,
        **onnxruntime(signature, neutral / "model.onnx", lowered / "model.onnx", folder),
        **tensorrt(signature, neutral / "model.onnx", folder / "tensorrt"),
    }


def write(path: Path, folder: Path, passes: Any) -> tuple[int, int]:
    model, _ = PassManager(passes).run(load(path))
    folder.mkdir(parents=True)
    save(model, folder)
    kinds = [node.op_type for node in model.graph]
    return len(kinds), kinds.count("Attention")


def onnxruntime(signature: Signature, neutral: Path, lowered: Path, folder: Path) -> dict[str, Any]:
    try:
        OnnxRuntime().build(lowered, folder / "onnxruntime", Profile(), {"threads": 1})
        worst, feeds = 0.0, [feed(signature, sizes, 99) for sizes in GRID]
        before = replay(neutral, feeds)
        with OnnxRuntime().runner(folder / "onnxruntime") as run:
            for arrays, expected in zip(feeds, before, strict=True):
                found = run(arrays)
                worst = max(
                    worst, *(relative_error(expected[name], found[name]) for name in expected)
                )
    except Error as error:
        return {"onnxruntime": "failed", "error": None, "reason": str(error)}
    return {"onnxruntime": "equal" if worst <= TOLERANCE else "differs", "error": worst}


def tensorrt(signature: Signature, neutral: Path, folder: Path) -> dict[str, Any]:
    dims = {
        name: LENGTHS.get(name)
        or (bounds.min, max(bounds.min, min(8, bounds.max or 8)), min(bounds.max or 64, 64))
        for name, bounds in signature.dims.items()
    }
    backend, started = TensorRtRtx(), time.perf_counter()
    try:
        write(neutral, folder / "lowered", backend.lowering("fp32"))
        lowered = folder / "lowered" / "model.onnx"
        facts = backend.build(lowered, folder / "engine", Profile(dims), {}).facts
    except Error as error:
        return {"tensorrt-rtx": "refused", "layers": None, "why": str(error)}
    seconds = round(time.perf_counter() - started, 2)
    return {"tensorrt-rtx": "compiled", "layers": facts["layers"], "seconds": seconds}


def rows(only: str) -> Iterator[dict[str, Any]]:
    for tiny in TINY:
        if only.lower() not in tiny.architecture.lower():
            continue
        folder = Path(tempfile.mkdtemp(prefix="engines-"))
        try:
            yield from check(tiny, folder)
        except Error as error:
            yield {"model": tiny.architecture, "method": tiny.task, "reason": str(error)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def show(row: dict[str, Any]) -> None:
    if "nodes" not in row:
        print(f"{row['model']:42} {row['reason'][:120]}", flush=True)
        return
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    print(
        f"{row['model']:42} {row['graph'][:18]:18} {row['nodes']:5} {row['attentions']:3}"
        f" {row['onnxruntime']:>8} {error:>8} {row['tensorrt-rtx']:>9}"
        f" {row.get('why', row.get('reason', ''))[:150]}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: list[dict[str, Any]] = []
    for row in rows(asked.only):
        found.append(row)
        if not asked.json:
            show(row)
    if asked.json:
        environment = {"onnxruntime": ort.__version__, "python": sys.version.split()[0]}
        print(json.dumps({"rows": found, "environment": environment}))


if __name__ == "__main__":
    main()
