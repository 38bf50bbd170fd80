"""Perplexity of causal language models with weights zero, of low rank, or with parts removed.

    python benchmarks/compress_language.py [SUBJECT...] [--pattern 2:4] [--ratio 0.2] [--count 64]
        [--kinds zeros thin parts] [--json]

Subjects: stories260k and smollm2, as in int8_accuracy.py: planned on one part of a text, scored on
another. `of_float` is the perplexity over the dense model's; `ratio` is the share of the layers'
parameters that low rank removes, or of the neurons, or of the layers (`parts`); nothing is trained.
`published` is what a paper reports for its own model: perplexity over dense at that share, removed
in the same way without training (layers by SLEB, parts of layers by LLM-Pruner; both of Llama-2-7B
on C4, arXiv 2402.09025, table 1). No speed follows from zeros on a CPU: they are stored and
multiplied as any other number.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
from int8_data import MissingError, Subject, write_texts
from int8_methods import session
from int8_subjects import SUBJECTS
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.text import Encoder
from llmdeploy.passes import load, save
from llmdeploy.passes.low_rank import LowRank
from llmdeploy.passes.prune import Prune
from llmdeploy.passes.sparsify import Sparsify
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.compress import subject as compress
from llmdeploy.toolchain.compress.factoring import factor
from llmdeploy.toolchain.compress.pruning import prune
from llmdeploy.toolchain.compress.sparsifying import sparsify
from llmdeploy.toolchain.config import Calibration, Config, Model
from llmdeploy.toolchain.feeds import calibration_feeds, logit_names, mask_name
from llmdeploy.toolchain.narrowing import Narrowing, through
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

SPARSE = ("sparsegpt", "wanda", "magnitude")
THIN = ("whitened", "qr", "svd")
PUBLISHED = {
    "20% of layers, uncorrected": round(12.32 / 7.26, 2),
    "20% of neurons": round(12.25 / 7.26, 2),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=["stories260k", "smollm2"])
    parser.add_argument("--pattern", default="2:4", choices=("2:4", "unstructured"))
    parser.add_argument("--ratio", type=float, default=0.2)
    parser.add_argument("--count", type=int, default=64, help="samples to plan on")
    parser.add_argument("--kinds", nargs="*", default=["zeros", "thin", "parts"])
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="these rows and float's")
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def rows(subject: Subject, root: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    root.mkdir(parents=True, exist_ok=True)
    write_texts(subject.texts(), root / "texts.jsonl")
    samples = Calibration(
        samples=str(root / "texts.jsonl"), count=asked.count, max_length=subject.max_length
    )
    config = Config(model=Model(checkpoint=subject.checkpoint(root)), calibration=samples)
    run = Run(config, Workspace(root / "artifacts"))
    with run.workspace.locked():
        stages.optimize(run)
        feeds = calibration_feeds(run)
    model, encoder = run.folder("optimize") / "model.onnx", Encoder(run.folder("export"))
    given = compress.Subject(model, feeds.fit, feeds.held_out, mask_name(run), logit_names(run))
    with session(model, 1) as call:
        wanted = subject.answer(call, encoder)
    yield {"model": subject.name, "method": "float", **subject.score(wanted, wanted)}
    for method, make in methods(asked).items():
        started = time.perf_counter()
        made, told, narrow = make(given)
        save(made, root / "made")
        seconds = time.perf_counter() - started
        with session(root / "made" / "model.onnx", 1) as call:
            found = subject.score(subject.answer(through(narrow, call), encoder), wanted)
        gone = told.get("parameters_removed", 1 - parameters(made) / parameters(load(model)))
        yield {
            "model": subject.name, "method": method, **found, "parameters_removed": gone,
            "seconds": round(seconds, 1), "published": PUBLISHED.get(method),
        }  # fmt: skip


def parameters(model: ir.Model) -> int:
    """Numbers in the weights of a model that are matrices."""
    values = model.graph.initializers.values()
    return sum(value.const_value.size for value in values if value.const_value is not None)


def methods(asked: argparse.Namespace) -> dict[str, Callable[[compress.Subject], Any]]:
    """Each method by its name: a model, what is told of it, and what it takes and gives less."""
    found: dict[str, Callable[[compress.Subject], Any]] = {}
    if "zeros" in asked.kinds:
        for method in SPARSE:
            zeros = Sparsify(pattern=asked.pattern, method=method)
            found[f"{asked.pattern} {method}"] = partial(whole, sparsify, zeros)
    if "thin" in asked.kinds:
        for method in THIN:
            thin = LowRank(ratio=asked.ratio, method=method)
            found[f"low rank {asked.ratio:.0%} {method}"] = partial(whole, factor, thin)
    if "parts" in asked.kinds:
        share = {"max_drop": 0.999, "multiple": 8}
        found |= {
            "20% of neurons": partial(parts, Prune(neurons=0.2, **share)),
            "20% of neurons, uncorrected": partial(
                parts, Prune(neurons=0.2, correct=False, **share)
            ),
            "20% of neurons, magnitude": partial(
                parts, Prune(neurons=0.2, correct=False, method="magnitude", **share)
            ),
            "20% of layers": partial(parts, Prune(layers=0.2, **share)),
            "20% of layers, uncorrected": partial(parts, Prune(layers=0.2, correct=False, **share)),
        }
    return {
        name: each for name, each in found.items() if not asked.methods or name in asked.methods
    }


def whole(make: Callable[..., Any], asked: Any, given: compress.Subject) -> Any:
    return (*make(given, asked), Narrowing())


def parts(asked: Prune, given: compress.Subject) -> Any:
    made = prune(given, asked, OnnxRuntime())
    return made.model, made.results, made.narrowing


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    stream = sys.stderr if asked.json else sys.stdout
    with tempfile.TemporaryDirectory() as temporary:
        for subject in (each for each in SUBJECTS if each.name in asked.subjects):
            try:
                for row in rows(
                    subject, (asked.workspace or Path(temporary)) / subject.name, asked
                ):
                    found.append(row)
                    print("  ".join(f"{k} {v}" for k, v in row.items()), file=stream, flush=True)
            except MissingError as error:
                found.append({"model": subject.name, "method": "all", "reason": str(error)})
    if asked.json:
        print(json.dumps({"rows": found, "environment": {"cores": os.cpu_count(), "seed": 0}}))


if __name__ == "__main__":
    main()
