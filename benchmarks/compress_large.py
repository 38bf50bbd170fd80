"""Compression of a model larger than the memory it may take: the 1.1B float32 Llama, random.

    python benchmarks/compress_large.py [prune sparsify low-rank prune-wanda sparsify-wanda layers]
        [--layers 22] [--rows 4] [--tokens 128] [--keep DIR] [--json]

The graph (4.4 GB) is made first, as int8_large.py does; then each pass is carried out by a process
of its own, whose peak of resident memory is the figure: a fifth of all neurons removed and the rest
corrected, two of four weights zero by SparseGPT, a fifth of the parameters gone into thin factors.
`prune-wanda` and `sparsify-wanda` choose by Wanda instead, in a fraction of the time; the former is
corrected all the same. `layers` takes a fifth of the whole layers, uncorrected. Loss is that of the
stage, on held-out tokens. Weights and tokens are random: what is measured is memory and time, and
no loss says anything of a real model.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from int8_large import feed, make

FIFTH: dict[str, Any] = {"use": "prune", "neurons": 0.2, "max_drop": 0.99}
PASSES: dict[str, dict[str, Any]] = {
    "prune": FIFTH,
    "prune-wanda": {**FIFTH, "method": "wanda"},
    "sparsify": {"use": "sparsify", "max_drop": 1e9},
    "sparsify-wanda": {"use": "sparsify", "method": "wanda", "max_drop": 1e9},
    "layers": {"use": "prune", "layers": 0.2, "correct": False, "max_drop": 0.99},
    "low-rank": {"use": "low-rank", "ratio": 0.2, "multiple": 64, "max_drop": 1e9},
}
#: Those that are asked for by name alone.
CHEAPER = ("prune-wanda", "sparsify-wanda", "layers")
BATCHES = 4


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "passes",
        nargs="*",
        metavar="PASS",
        default=[each for each in PASSES if each not in CHEAPER],
    )
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--keep", type=Path, help="make the model there, and leave it")
    parser.add_argument("--child", choices=("make", *PASSES), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measured(root: Path, name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One pass: its seconds, the peak of memory since the process began, and what it costs."""
    from llmdeploy.deploy.ort import OnnxRuntime
    from llmdeploy.deploy.signature import Signature
    from llmdeploy.toolchain.compress.stage import carry_out
    from llmdeploy.toolchain.compress.subject import Subject
    from llmdeploy.toolchain.config import PassTable

    graph, known = root / "optimize" / "model.onnx", Signature.load(root / "export")
    feeds = [feed(known, asked.rows, asked.tokens, seed) for seed in range(BATCHES)]
    subject = Subject(graph, feeds[:-1], feeds[-1:], "attention_mask", ("logits",))
    folder, started = root / name, time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    table = PassTable.model_validate(PASSES[name])
    told = carry_out(subject, [table], OnnxRuntime(), folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(path.stat().st_size for path in folder.iterdir())
    shutil.rmtree(folder)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_bytes": peak,
        "weight_bytes": sum(path.stat().st_size for path in graph.parent.glob("*.data")),
        "weight_bytes_after": size,
        "loss": round(told["loss"], 6),
    }


def child(name: str, asked: argparse.Namespace, root: Path) -> str:
    command = [sys.executable, __file__, "--child", name, "--keep", str(root)]
    for each in ("layers", "rows", "tokens"):
        command += [f"--{each}", str(getattr(asked, each))]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    asked = arguments()
    if asked.child == "make":
        make(asked.keep, asked.layers)
        return
    if asked.child:
        print(json.dumps(measured(asked.keep, asked.child, asked)))
        return
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        child("make", asked, root)
        for name in asked.passes:
            figures = json.loads(child(name, asked, root).splitlines()[-1])
            found.append({"model": f"llama, {asked.layers} layers", "method": name, **figures})
            shown = "  ".join(f"{key} {value}" for key, value in found[-1].items())
            print(shown, file=sys.stderr if asked.json else sys.stdout, flush=True)
    if asked.json:
        facts = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
        print(json.dumps({"rows": found, "environment": facts}))


if __name__ == "__main__":
    main()
