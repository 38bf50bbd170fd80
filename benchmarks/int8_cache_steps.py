"""Of how much of a cache one int8 step should be: perplexity by what shares a step.

    python benchmarks/int8_cache_steps.py [stories260k|smollm2]... [--tokens 4096]
        [--workspace DIR] [--json]

The float graph with its cache as int8, steps from the samples of the INT8 benchmarks, scored on the
text they are scored on, all tokens of a row at once: each is rounded as if it had been kept. Shared
by all of a tensor, by a head, by a channel of all heads, by none (a step a channel of each head, as
`[quantize] cache` takes them); `not moved` are the latter from positions as samples have them.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_cache import TEXTS, empty, feed_of, likelihood, release, rows_of
from int8_data import Array, MissingError, Run, Subject, write_texts
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.calibration.kept import Reach
from llmdeploy.deploy.signature import Signature
from llmdeploy.deploy.text import Encoder
from llmdeploy.passes import load, save
from llmdeploy.passes.cache import Kept, QuantizeCache
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.feeds import calibration_feeds, mask_name
from llmdeploy.toolchain.int8.cache import Watch, moved
from llmdeploy.toolchain.replay import opened

#: Steps [heads, width] from those of each channel, by what shares one.
SHARED: Mapping[str, Callable[[Array], Array]] = {
    "tensor": lambda steps: np.full_like(steps, steps.max()),
    "head": lambda steps: np.broadcast_to(steps.max(axis=1, keepdims=True), steps.shape).copy(),
    "channel of all heads": lambda steps: np.broadcast_to(steps.max(axis=0), steps.shape).copy(),
    "none": lambda steps: steps,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*TEXTS, []])
    parser.add_argument("--tokens", type=int, default=4096, help="tokens that are scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def scored(call: Run, known: Signature, rows: Array) -> float:
    """The perplexity of rows [rows, tokens], a row at once."""
    found: list[Array] = []
    for row in rows:
        fed = feed_of(known, row[None, :-1], empty(known, 1))
        found.append(likelihood(call(fed)["logits"], row[None, 1:]))
    return float(np.exp(-np.concatenate(found).mean()))


def choices(root: Path, subject: Subject, asked: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """What is shared, and the perplexity; float's first."""
    run = release(root, subject, asked, ("fp32", "float"))
    stages.optimize(run)
    graph = run.folder("optimize") / "model.onnx"
    known = Signature.load(run.folder("export"))
    rows = rows_of(subject, Encoder(run.folder("export")), asked.tokens)
    yield "float", scored(opened(graph), known, rows)
    feeds = calibration_feeds(run).fit
    outputs = tuple(each.name for each in known.outputs if each.role.startswith("present_"))
    watch = Watch(graph, outputs, mask_name(run), root)
    for name, fed in (("", moved(known, feeds)), (", not moved", feeds)):
        found = watch(fed, lambda _: Reach())
        for shared, share in SHARED.items():
            if not name or shared == "none":
                steps = {each: share(found[each].steps()) for each in outputs}
                yield shared + name, of_steps(graph, known, steps, rows)


def of_steps(graph: Path, known: Signature, steps: Mapping[str, Array], rows: Array) -> float:
    tensors = {each.replace("present", "past"): Kept(each, array) for each, array in steps.items()}
    kept = {*tensors}
    narrow = known.model_copy(
        update={
            "inputs": tuple(
                each.model_copy(update={"dtype": "int8"}) if each.name in kept else each
                for each in known.inputs
            )
        }
    )
    with tempfile.TemporaryDirectory(dir=graph.parent) as folder:
        save(QuantizeCache(tensors=tensors)(load(graph)).model, Path(folder))
        return scored(opened(Path(folder) / "model.onnx"), narrow, rows)


def table(subject: Subject, asked: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as aside:
        root = (asked.workspace or Path(aside)) / subject.name
        root.mkdir(parents=True, exist_ok=True)
        write_texts(subject.texts(), root / "texts.jsonl")
        found = dict(choices(root, subject, asked))
    return [
        {
            "model": subject.name,
            "method": name,
            "perplexity": each,
            "of_float": each / found["float"],
        }
        for name, each in found.items()
    ]


def main() -> int:
    asked, rows = arguments(), list[dict[str, Any]]()
    for subject in SUBJECTS:
        if subject.name in (asked.models or TEXTS):
            try:
                rows += table(subject, asked)
            except (Error, MissingError) as error:
                print(f"{subject.name}: {error}", file=sys.stderr)
    if asked.json:
        environment = {"onnxruntime": ort.__version__, "tokens": asked.tokens}
        print(json.dumps({"rows": rows, "environment": environment}))
    else:
        print("| model | a step is shared by | perplexity | of float |\n|---|---|---|---|")
        for row in rows:
            figures = f"{row['perplexity']:.3f} | {row['of_float']:.4f}"
            print(f"| {row['model']} | {row['method']} | {figures} |")
    return 0 if rows else 1


if __name__ == "__main__":
    raise SystemExit(main())
