"""Calibration of a model larger than memory: the 1.1B float32 Llama, random, block by block.

    python benchmarks/int8_large.py [--layers 22] [--rows 8] [--tokens 128] [--keep DIR] [--json]

The checkpoint (4.4 GB), its graph and the optimised graph are made first, one at a time: 9 GB of
disk. Calibrating is a process of its own, whose peak memory is the figure: the graph is run on
all tokens at once and on single tokens with the cache that they left. Its tokens are random, for
its weights are: what is measured is memory and time, not accuracy.
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

import numpy as np

#: LlamaConfig of 1.1 billion parameters.
LLAMA = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}

BATCHES = 4


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LLAMA["num_hidden_layers"])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--keep", type=Path, help="make the model there, and leave it")
    parser.add_argument("--child", choices=("make", "calibrate"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def make(root: Path, layers: int) -> None:
    """The optimised graph in root/optimize, io.json in root/export; all other weights deleted."""
    from llmdeploy.passes import PassManager, load, save
    from llmdeploy.toolchain.choosing import make_pass
    from llmdeploy.toolchain.config import Config
    from llmdeploy.toolchain.exporter import export

    if (root / "optimize" / "model.onnx").exists():
        return
    checkpoint = root / "checkpoint"
    checkpoint.mkdir()
    random_checkpoint(checkpoint, layers)
    (root / "export").mkdir()
    export(str(checkpoint), root / "export", task="text-generation")
    shutil.rmtree(checkpoint)
    passes = [make_pass(table) for table in Config().passes]
    model, _ = PassManager(passes).run(load(root / "export"))
    save(model, root / "optimize")
    for path in (root / "export").iterdir():
        if path.suffix != ".json":
            path.unlink()


def random_checkpoint(folder: Path, layers: int) -> None:
    """A random checkpoint whose norms are random too: all ones would fold away."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**LLAMA, "num_hidden_layers": layers})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def calibrated(root: Path, rows: int, tokens: int) -> dict[str, Any]:
    """Calibrate; seconds, the peak of memory since the process began, and what was calibrated."""
    from llmdeploy.deploy.signature import Signature
    from llmdeploy.toolchain.feeds.streamed import continued
    from llmdeploy.toolchain.int8.quantizing import calibrate

    graph, known = root / "optimize" / "model.onnx", Signature.load(root / "export")
    feeds = [feed(known, rows, tokens, seed) for seed in range(BATCHES)]
    folder, started = Path(tempfile.mkdtemp(dir=root)), time.perf_counter()
    fit, held_out = feeds[:-1], feeds[-1:]
    made = calibrate(
        graph,
        folder,
        (*fit, *continued(graph, known, fit[:1])),
        mask="attention_mask",
        held_out=held_out,
    )
    seconds = time.perf_counter() - started
    ranges = json.loads((folder / "ranges.json").read_text())["ranges"]
    files = sorted(folder.glob("ranges*.safetensors"))
    shutil.rmtree(folder)
    return {
        "seconds": round(seconds, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "weight_bytes": sum(path.stat().st_size for path in graph.parent.glob("*.data")),
        "activations": len(ranges),
        "blocks": len(files),
        "tokens": made["tokens"],
        "worst_snr_db": min(each["snr_db"] for each in made["worst"]),
    }


def feed(known: Any, rows: int, tokens: int, seed: int) -> dict[str, np.ndarray]:
    """Random ids, every place of them real, an empty cache."""
    sizes = {"batch": rows, "sequence": tokens, "past": 0, "total": tokens}
    random, made = np.random.default_rng(seed), dict[str, np.ndarray]()
    for each in known.inputs:
        shape = [dim if isinstance(dim, int) else sizes[dim] for dim in each.shape]
        if each.role == "input_ids":
            made[each.name] = random.integers(3, LLAMA["vocab_size"], shape)
        elif each.role == "position_ids":
            made[each.name] = np.broadcast_to(np.arange(tokens), shape).astype(each.dtype)
        else:
            made[each.name] = np.ones(shape, each.dtype)
    return made


def child(kind: str, asked: argparse.Namespace, root: Path) -> str:
    command = [sys.executable, __file__, "--child", kind, "--keep", str(root)]
    for name in ("layers", "rows", "tokens"):
        command += [f"--{name}", str(getattr(asked, name))]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    asked = arguments()
    if asked.child == "make":
        make(asked.keep, asked.layers)
        return
    if asked.child == "calibrate":
        print(json.dumps(calibrated(asked.keep, asked.rows, asked.tokens)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.keep or Path(temporary)
        child("make", asked, root)
        figures = json.loads(child("calibrate", asked, root).splitlines()[-1])
    row = {"model": f"llama, {asked.layers} layers", "method": "block by block", **figures}
    if asked.json:
        facts = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
        print(json.dumps({"rows": [row], "environment": facts}))
    else:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
