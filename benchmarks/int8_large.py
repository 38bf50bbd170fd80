"""INT8 of a model larger than memory: the 1.1B float32 Llama, random, block by block.

    python benchmarks/int8_large.py [--layers 22] [--rows 8] [--tokens 128] [--max-drop 0.01]
        [--weights] [--keep DIR] [--json]

The checkpoint (4.4 GB), its graph and the optimised graph are made first, one at a time: 12 GB of
disk. Calibrating and quantising are processes of their own, whose peak memory is the figure: the
graph is run on all tokens at once and on single tokens with the cache that they left; what INT8
costs is measured, and layers go back to float until the budget holds. `--weights` rounds weights
alone to int4 by the same samples too. Its tokens are random, for its weights are: what is measured
is memory and time, not accuracy.
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
MEASURED = ("calibrate", "quantize", "int4")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LLAMA["num_hidden_layers"])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--weights", action="store_true", help="int4 of weights alone too")
    parser.add_argument("--keep", type=Path, help="make the model there, and leave it")
    parser.add_argument("--child", choices=("make", *MEASURED), help=argparse.SUPPRESS)
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


def measured(root: Path, kind: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One stage: its seconds, the peak of memory since the process began, and what it says."""
    from llmdeploy.deploy.signature import Signature
    from llmdeploy.toolchain.feeds.streamed import continued

    graph, known = root / "optimize" / "model.onnx", Signature.load(root / "export")
    feeds = [feed(known, asked.rows, asked.tokens, seed) for seed in range(BATCHES)]
    fit, held_out = feeds[:-1], feeds[-1:]
    folder, started = root / kind, time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if kind == "calibrate":
        fit = [*fit, *continued(graph, known, fit[:1])]
    made = STAGES[kind](graph, folder, fit, held_out, asked)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "weight_bytes": sum(path.stat().st_size for path in graph.parent.glob("*.data")),
        **made,
    }


def calibrated(
    graph: Path, folder: Path, fit: Any, held_out: Any, asked: argparse.Namespace
) -> dict[str, Any]:
    from llmdeploy.toolchain.int8.quantizing import calibrate

    del asked
    made = calibrate(graph, folder, fit, mask="attention_mask", held_out=held_out)
    ranges = json.loads((folder / "ranges.json").read_text())["ranges"]
    return {
        "activations": len(ranges),
        "blocks": len(sorted(folder.glob("ranges*.safetensors"))),
        "tokens": made["tokens"],
        "worst_snr_db": min(each["snr_db"] for each in made["worst"]),
    }


def quantized(
    graph: Path, folder: Path, fit: Any, held_out: Any, asked: argparse.Namespace
) -> dict[str, Any]:
    from llmdeploy.toolchain.int8.quantizing import quantize

    del fit
    made = quantize(
        graph,
        folder.parent / "calibrate",
        folder,
        max_drop=asked.max_drop,
        feeds=held_out,
        mask="attention_mask",
        logits=("logits",),
    )
    return {"int8_share": made["int8_share"], "drop": round(1 - made["mean_cosine_holdout"], 6)}


def weighed(
    graph: Path, folder: Path, fit: Any, held_out: Any, asked: argparse.Namespace
) -> dict[str, Any]:
    from llmdeploy.toolchain.weight_only.making import quantize
    from llmdeploy.toolchain.weight_only.recipe import Recipe
    from llmdeploy.toolchain.weight_only.rounds import Samples

    del asked
    samples = Samples(fit, held_out, "attention_mask")
    made = quantize(
        graph, folder, recipe=Recipe(4, 32, "gptq"), samples=samples, logits=("logits",)
    )
    return {"int4_share": made["weight_share"], "drop": made["drop_holdout"]}


STAGES = {"calibrate": calibrated, "quantize": quantized, "int4": weighed}


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
    for name in ("layers", "rows", "tokens", "max_drop"):
        command += [f"--{name.replace('_', '-')}", str(getattr(asked, name))]
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
        child("make", asked, root)
        for kind in MEASURED if asked.weights else MEASURED[:2]:
            figures = json.loads(child(kind, asked, root).splitlines()[-1])
            found.append({"model": f"llama, {asked.layers} layers", "method": kind, **figures})
            shown = "  ".join(f"{name} {value}" for name, value in found[-1].items())
            print(shown, file=sys.stderr if asked.json else sys.stdout, flush=True)
    if asked.json:
        facts = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
        print(json.dumps({"rows": found, "environment": facts}))


if __name__ == "__main__":
    main()
