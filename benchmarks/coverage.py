"""Which architectures export, at which opset, with what parity: the truth, failures included.

    python benchmarks/coverage.py [--json] [--markdown FILE] [--only SUBSTRING] [--opset N]

Every model is tiny and random (architectures.py). Each graph must pass ONNX's checker with full
inference of its shapes. Each graph is run by ONNX Runtime on a grid of
shapes (batch 1 and more, sequence 1, odd sizes, empty past, padding left and right) and compared
with torch; the figure is the worst difference over the output's scale. float32, CPU.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from architectures import TINY, Tiny
from llmdeploy import Error
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain.exporter import export, reference
from numpy.typing import NDArray

TOLERANCE = 1e-4
END = 2  # architectures.py's eos: every text ends with it
#: Sizes of the dimensions a graph has, and the side that is padded.
GRID: tuple[dict[str, Any], ...] = (
    {"batch": 1, "sequence": 1, "past": 0, "source": 1, "side": "right"},
    {"batch": 1, "sequence": 9, "past": 0, "source": 9, "side": "right"},
    {"batch": 3, "sequence": 7, "past": 0, "source": 5, "side": "left"},
    {"batch": 2, "sequence": 8, "past": 0, "source": 12, "side": "right"},
    {"batch": 2, "sequence": 1, "past": 13, "source": 7, "side": "left"},
    {"batch": 3, "sequence": 4, "past": 17, "source": 3, "side": "left"},
)
Arrays = dict[str, NDArray[np.generic]]


def feed(signature: Signature, sizes: Mapping[str, Any], vocabulary: int) -> Arrays:
    """Random inputs of these sizes, the later rows padded."""
    rng = np.random.default_rng(0)
    known = {"choices": 2, "texts": 3, "samples": 1800, "frames": 37, **sizes}
    known["total"] = known["past"] + known["sequence"]
    made: Arrays = {}
    for tensor in signature.inputs:
        shape = [known[dim] if isinstance(dim, str) else dim for dim in tensor.shape]
        if tensor.role.endswith("attention_mask"):
            made[tensor.name] = mask(shape, sizes["side"])
        elif tensor.role == "token_type_ids":
            made[tensor.name] = np.zeros(shape, np.int64)
        elif tensor.dtype == "int64":
            made[tensor.name] = rng.integers(3, vocabulary, shape)
        else:
            made[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    if "position_ids" in made:
        seen = made["attention_mask"].astype(np.int64).cumsum(-1) - 1
        made["position_ids"] = seen.clip(0)[:, known["past"] :]
    if "input_ids" in made and "attention_mask" in made:
        hidden = made["attention_mask"][..., -made["input_ids"].shape[-1] :] == 0
        pad = signature.inputs[0].pad or 0
        ids = np.where(hidden, pad, made["input_ids"])
        last = (~hidden * np.arange(1, hidden.shape[-1] + 1)).argmax(-1, keepdims=True)
        np.put_along_axis(ids, last, END, -1)
        made["input_ids"] = ids
    return made


def mask(shape: list[int], side: str) -> NDArray[np.int64]:
    """Ones; every row but the first loses a part of itself, never all."""
    made = np.ones(shape, np.int64)
    rows = made.reshape(-1, shape[-1])
    for index in range(1, len(rows)):
        lost = min(shape[-1] - 1, 1 + shape[-1] * index // (2 * len(rows)))
        rows[index, slice(lost) if side == "left" else slice(shape[-1] - lost, None)] = 0
    return made


def worst(signature: Signature, made: Arrays, wanted: Arrays, inputs: Arrays) -> float:
    """The greatest difference over the output's scale, where tokens are real."""
    if made.keys() != wanted.keys():
        raise AssertionError(f"outputs differ: {sorted(made.keys() ^ wanted.keys())}")
    errors = [0.0]
    for tensor in signature.outputs:
        one, other = made[tensor.name], wanted[tensor.name]
        if one.shape != other.shape:
            raise AssertionError(f"{tensor.name} is {one.shape}, torch says {other.shape}")
        real = _real(tensor.shape, one, inputs)
        scale = float(np.abs(other[real]).max())
        if scale == 0:
            raise AssertionError(f"{tensor.name} is all zeros: nothing was compared")
        errors.append(float(np.abs(one[real] - other[real]).max()) / scale)
    return max(errors)


def _real(dims: tuple[int | str, ...], array: NDArray[np.generic], inputs: Arrays) -> Any:
    seen = inputs.get("attention_mask", inputs.get("encoder_attention_mask"))
    if seen is None or seen.ndim != 2 or not {"sequence", "total"} & set(dims):
        return ...
    axis = dims.index("sequence") if "sequence" in dims else dims.index("total")
    if "attention_mask" not in inputs or dims[0] != "batch":
        return ...
    real = seen[:, -array.shape[axis] :].astype(bool)
    shape = [
        array.shape[0] if i == 0 else array.shape[axis] if i == axis else 1
        for i in range(array.ndim)
    ]
    return np.broadcast_to(real.reshape(shape), array.shape)


def graphs(folder: Path) -> Iterator[tuple[str, Path, Signature]]:
    """The graphs of an export, with their signatures."""
    top = Signature.load(folder)
    for name in top.components or ("",):
        yield name, folder / name / "model.onnx", Signature.load(folder / name)


def compare(checkpoint: Path, folder: Path, task: str) -> float:
    """The worst difference over every graph and the whole grid."""
    import onnxruntime as ort

    errors = [0.0]
    vocabulary = json.loads((checkpoint / "config.json").read_text()).get("vocab_size") or 99
    for name, path, signature in graphs(folder):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        feeds = [feed(signature, sizes, vocabulary) for sizes in GRID]
        expected = reference(str(checkpoint), feeds, task=task, component=name)
        for one, wanted in zip(feeds, expected, strict=True):
            made = dict(zip(names, session.run(None, one), strict=True))
            errors.append(worst(signature, made, wanted, one))
    return max(errors)


def row(tiny: Tiny, opset: int) -> dict[str, Any]:
    """Export and compare one architecture."""
    made: dict[str, Any] = {"model": tiny.architecture, "method": "llmdeploy", "task": tiny.task}
    with tempfile.TemporaryDirectory() as name:
        checkpoint, folder = Path(name) / "checkpoint", Path(name) / "export"
        folder.mkdir()
        tiny.save(checkpoint)
        started = time.perf_counter()
        try:
            results = export(str(checkpoint), folder, opset=opset)
        except Error as error:
            return {**made, "works": False, "reason": error.what}
        made |= {"seconds": round(time.perf_counter() - started, 1), "opset": results["opset"]}
        made |= {"nodes": results["nodes"], "graphs": len(results["components"]) or 1}
        made |= {
            "note": "no cache" if any("without a cache" in n for n in results["notes"]) else ""
        }
        if results["task"] != tiny.task:
            return {**made, "works": False, "reason": f"taken for {results['task']}"}
        try:
            error = compare(checkpoint, folder, results["task"])
        except Exception as problem:
            reason = f"{type(problem).__name__}: {str(problem).splitlines()[0][:160]}"
            return {**made, "works": False, "reason": reason}
    works = error <= TOLERANCE
    return {**made, "error": error, "works": works, "reason": None if works else "parity"}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what works with its parity, then what does not and why."""
    good = [one for one in rows if one["works"]]
    bad = [one for one in rows if not one["works"]]
    lines = [
        "| architecture | task | opset | graphs | nodes | parity |",
        "|---|---|---|---|---|---|",
    ]
    for one in good:
        note = f" ({one['note']})" if one["note"] else ""
        cells = (one["task"] + note, one["opset"], one["graphs"], one["nodes"])
        lines.append(_line(one["model"], *cells, f"{one['error']:.1e}"))
    if bad:
        lines += ["", "| does not work | task | why |", "|---|---|---|"]
        lines += [_line(one["model"], one["task"], one["reason"]) for one in bad]
    return "\n".join([*lines, "", f"{len(good)} of {len(rows)} work."])


def _line(*cells: object) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def page(rows: list[dict[str, Any]], environment: Mapping[str, Any]) -> str:
    """The table as a page of the documentation."""
    versions = ", ".join(f"{name} {value}" for name, value in environment.items())
    return (
        "# Which architectures export\n\n"
        "Written by `python benchmarks/coverage.py --markdown docs/coverage.md`. Tiny random models"
        " of transformers;\neach graph is compared with torch on a grid of shapes (batch 1 to 3,"
        " sequence 1 and odd, empty past,\npadding left and right). Parity is the worst difference"
        f" over the output's scale, float32 on the CPU;\n{TOLERANCE:.0e} is the bar.\n\n"
        f"{table(rows)}\n\n{versions}.\n"
    )


def main() -> None:
    """Print the table, or one JSON object."""
    import onnx
    import onnxruntime
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", type=Path, help="write the table there, as a page")
    parser.add_argument("--only", default="")
    parser.add_argument("--opset", type=int, default=20)
    asked = parser.parse_args()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    rows = []
    for tiny in TINY:
        if asked.only.lower() in f"{tiny.architecture} {tiny.task}".lower():
            rows.append(row(tiny, asked.opset))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    packages = (torch, transformers, onnx, onnxruntime)
    environment = {one.__name__: one.__version__ for one in packages}
    if asked.markdown:
        asked.markdown.write_text(page(rows, environment), encoding="utf-8")
    if asked.json:
        environment["tolerance"] = TOLERANCE
        print(json.dumps({"rows": rows, "environment": environment}))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
