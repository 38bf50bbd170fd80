"""Memory of rounding the weights of an 8B-shaped checkpoint: random, bfloat16, tensor by tensor.

    python benchmarks/weight_only_large.py [--layers 32] [--precision w8|int4]...
        [--method rtn|gptq|auto]... [--only NAME] [--root DIR] [--json]

A checkpoint of Llama 3.1 8B's shape (16 GB with all 32 layers), its optimised graph and the
rounded graph are made one after the other: 37 GB of disk with 32 layers, 12 GB with 8. Rounding is
a process of its own, whose peak memory is the figure; it does not depend on the number of layers.
int4 is of blocks of 32 with zero points, w8 of a scale an output, as `build` makes them. `gptq` and
`auto` round by the moments of made-up rows, since no CPU kernel runs the graph in bfloat16: what is
measured is memory and time, not accuracy, nor what running the samples takes. `cpu` are the seconds
of all cores, for a machine that others use; `compensated` is how many weights went GPTQ's way.
`--only` rounds the layers that have NAME in theirs: down_proj is the widest. `--root` keeps the
optimised graph, and takes it where it is there.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
ROWS = 2048
METHODS = ("rtn", "gptq", "auto")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--precision", action="append", choices=("w8", "int4"))
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--only", metavar="NAME", default="")
    parser.add_argument("--child", metavar="WHAT", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a Llama, by name."""
    width, inner, heads = LLAMA["hidden_size"], LLAMA["intermediate_size"], 1024
    yield "model.embed_tokens.weight", (LLAMA["vocab_size"], width)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, rows in (("q", width), ("k", heads), ("v", heads), ("o", width)):
            yield f"{at}.self_attn.{name}_proj.weight", (rows, width)
        for name in ("gate", "up"):
            yield f"{at}.mlp.{name}_proj.weight", (inner, width)
        yield f"{at}.mlp.down_proj.weight", (width, inner)
        for name in ("input", "post_attention"):
            yield f"{at}.{name}_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (LLAMA["vocab_size"], width)


def checkpoint(folder: Path, layers: int) -> None:
    """Random numbers, each tensor from another place of one pool, written as they come."""
    import ml_dtypes

    config = {**LLAMA, "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    pool = (random.standard_normal(1 << 24, np.float32) / 64).astype(ml_dtypes.bfloat16)
    header, end = {}, 0
    for name, shape in shapes(layers):
        size = int(np.prod(shape)) * 2
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in shapes(layers):
            left = int(np.prod(shape))
            while left:
                start = int(random.integers(0, len(pool) - 1))
                part = pool[start : start + min(left, len(pool) - start)]
                file.write((part + 1 if len(shape) == 1 else part).tobytes())
                left -= len(part)


def make(root: Path, layers: int) -> None:
    """The optimised bfloat16 graph in root/optimize; all other weights are deleted."""
    from llmdeploy.passes import PassManager, load, save
    from llmdeploy.toolchain.choosing import make_pass
    from llmdeploy.toolchain.config import Config
    from llmdeploy.toolchain.exporter import export
    from llmdeploy.toolchain.referenced import weights_of

    for name in ("checkpoint", "export"):
        (root / name).mkdir()
    checkpoint(root / "checkpoint", layers)
    folder = root / "export"
    task = {"task": "text-generation", "dtype": "auto", "weights": "reference"}
    export(str(root / "checkpoint"), folder, **task)
    passes = [make_pass(table) for table in Config().passes]
    read = load(folder / "model.onnx", weights_of(folder))
    model, _ = PassManager(passes, prove=False).run(read)
    save(model, root / "optimize")
    shutil.rmtree(root / "checkpoint")
    shutil.rmtree(folder)


def quantize(root: Path, what: str, only: str) -> dict[str, float]:
    """Round the weights of the graph in `root`; the size of what comes out."""
    from llmdeploy.passes import load
    from llmdeploy.passes.sites import find
    from llmdeploy.toolchain.weight_only import making, rounds, stage, streaming
    from llmdeploy.toolchain.weight_only.table import WORDS

    precision, method = what.split()
    block, bits = stage.USUAL[precision], making.BITS[precision]
    recipe, folder = making.Recipe(bits, block, method, moved=bits == 4), root / what
    folder.mkdir()
    samples, graph = rounds.Samples(), root / "optimize" / "model.onnx"
    nodes = (layer.node for site in find(load(graph)) for layer in site.layers)
    keep = [name for name in nodes if only not in name]
    if method != "rtn":
        rounds.measure = lambda _, __, sites, *___: made_up(sites, streaming)
        samples = rounds.Samples(fit=({},))
        making.Probe = lambda _: None
    made = making.quantize(graph, folder, recipe=recipe, samples=samples, keep=keep)
    ways = [layer["rounding"] for layer in made["layers"]]
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"size_mb": size / 1e6, "compensated": ways.count(WORDS["gptq"])}


def made_up(sites: Any, streaming: Any) -> Iterator[Any]:
    """Moments of random rows, an activation at a time, as a block of a running model gives them."""
    from llmdeploy.calibration import SecondMoments, Watched
    from llmdeploy.calibration.second_moments import Sums

    random = np.random.default_rng(0)
    for site in sites:
        sums = Sums([Watched(site.tensor)])
        for _ in range(ROWS // 256):
            rows = random.standard_normal((256, site.layers[0].k), np.float32)
            sums.add({site.tensor: rows}, None, 0)
        fit = sums.moments()[site.tensor]
        held_out = SecondMoments(fit.size, tuple(part.copy() for part in fit.parts))
        yield streaming.Measured(site, fit, held_out)


def child(root: Path, what: str, asked: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", what, "--root", str(root)]
    started = time.perf_counter()
    environment = {**os.environ, "TMPDIR": str(root)}
    done = subprocess.run(
        [*command, "--layers", str(asked.layers), "--only", asked.only],
        stdout=subprocess.PIPE,
        check=True,
        env=environment,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    asked = arguments()
    if asked.child:
        found: dict[str, float] = {}
        if asked.child == "make":
            make(asked.root, asked.layers)
        else:
            found = quantize(asked.root, asked.child, asked.only)
        used = resource.getrusage(resource.RUSAGE_SELF)
        peak, busy = used.ru_maxrss * 1024 / 1e9, used.ru_utime + used.ru_stime
        print(json.dumps({"peak_gb": peak, **found, "cpu": round(busy, 1)}))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.root or Path(temporary)
        root.mkdir(exist_ok=True)
        precisions, methods = asked.precision or ("int4",), asked.method or ("rtn",)
        made = () if (root / "optimize").exists() else ("make",)
        for what in (*made, *(f"{bits} {how}" for bits in precisions for how in methods)):
            figures = child(root, what, asked)
            name = "export and optimise" if what == "make" else what
            rows.append({"model": f"8B, {asked.layers} layers", "method": name, **figures})
            shutil.rmtree(root / what, ignore_errors=True)
            show = (f"{key} {value:.3g}" for key, value in figures.items())
            out = sys.stderr if asked.json else sys.stdout
            print(f"{rows[-1]['model']}  {name:20} {'  '.join(show)}", file=out, flush=True)
    if asked.json:
        print(json.dumps({"rows": rows, "environment": {"cores": os.cpu_count()}}))


if __name__ == "__main__":
    main()
