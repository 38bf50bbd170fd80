"""What a narrower residual stream costs by rotation (SliceGPT), beside pruning at the same work.

    python benchmarks/rotation.py [SUBJECT...] [--width 0.75] [--count 64] [--json]

Subjects as in int8_accuracy.py; minilm by default. The stream is what each layer's output is added
to. Of every such tensor the principal components over the fitted tokens are taken; `sliced`
projects all of them onto the first `--width` of theirs, which is what SliceGPT (arXiv 2401.15024)
computes, untrained, with the projection's two halves folded into the weights around. `energy` is
the share of the stream's power that this leaves out: the least, middle and most of all places.
`macs` counts multiply-adds of the layers over the dense model's; a sliced one has a matrix more in
each residual connection. `pruned` takes neurons alone, to the same multiply-adds, `corrected` or
not. `loss` is at the outputs on held-out samples: 1 - cosine, of logits the divergence.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from int8_data import MissingError, Subject, write_texts
from int8_subjects import SUBJECTS
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.passes import load, save
from llmdeploy.passes.coupling import groups
from llmdeploy.passes.infer import infer
from llmdeploy.passes.linear import array_of
from llmdeploy.passes.prune import Prune
from llmdeploy.passes.sites import by_name, layer_of
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.compress import subject as compress
from llmdeploy.toolchain.compress.account import macs
from llmdeploy.toolchain.compress.pruning import prune
from llmdeploy.toolchain.compress.rows import rows
from llmdeploy.toolchain.compress.stage import loss_of
from llmdeploy.toolchain.compress.stretch import opened
from llmdeploy.toolchain.compress.walk import Walk
from llmdeploy.toolchain.config import Calibration, Config, Model
from llmdeploy.toolchain.feeds import calibration_feeds, logit_names, mask_name
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=["minilm"], metavar="SUBJECT")
    parser.add_argument("--width", type=float, default=0.75, help="share of the stream that stays")
    parser.add_argument("--count", type=int, default=64, help="samples")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def given(subject: Subject, root: Path, count: int) -> compress.Subject:
    """The optimised graph and its samples."""
    root.mkdir(parents=True, exist_ok=True)
    write_texts(subject.texts(), root / "texts.jsonl")
    samples = Calibration(
        samples=str(root / "texts.jsonl"), count=count, max_length=subject.max_length
    )
    config = Config(model=Model(checkpoint=subject.checkpoint(root)), calibration=samples)
    run = Run(config, Workspace(root / "artifacts"))
    with run.workspace.locked():
        stages.optimize(run)
        feeds = calibration_feeds(run)
    model = run.folder("optimize") / "model.onnx"
    return compress.Subject(model, feeds.fit, feeds.held_out, mask_name(run), logit_names(run))


def found(subject: Subject, root: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    made = given(subject, root, asked.count)
    model = load(made.model)
    by_name(model)
    infer(model)
    every = groups(model)[0]
    steps = Walk(made, every, root / "walk").steps
    stream = list(dict.fromkeys(step.other for step in steps if step.other))
    bases = components(made, model, stream)
    width = next(iter(bases.values()))[1].shape[0]
    kept = round(width * asked.width)
    lost = sorted(1 - sizes[:kept].sum() / sizes.sum() for sizes, _ in bases.values())
    work = share(macs(made.model), len(stream), kept, width)
    started = time.perf_counter()
    project(model, {name: basis[:, :kept] for name, (_, basis) in bases.items()})
    save(model, root / "sliced")
    yield {
        "method": f"sliced to {kept} of {width}", "macs": work,
        "loss": loss_of(made, root / "sliced" / "model.onnx"),
        "energy": [float(lost[at]) for at in (0, len(lost) // 2, -1)],
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    for correct in (False, True):
        yield pruned(made, work, correct, root / "pruned")


def components(
    made: compress.Subject, model: ir.Model, stream: list[str]
) -> dict[str, tuple[Matrix, Matrix]]:
    """Of each tensor the power of its principal components, falling, and the components [d, d]."""
    grams: dict[str, Matrix] = {}
    with opened(model, made.fit[0], stream) as call:
        for feed in made.fit:
            for name, array in call(feed).items():
                x = rows(array, feed, made.mask).astype(np.float64)
                grams[name] = grams.get(name, 0.0) + x.T @ x
    pairs = {name: np.linalg.eigh(gram) for name, gram in grams.items()}
    return {name: (sizes[::-1], basis[:, ::-1]) for name, (sizes, basis) in pairs.items()}


def project(model: ir.Model, bases: dict[str, Matrix]) -> None:
    """Whoever reads one of these tensors reads its projection onto the given components."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    for name, basis in bases.items():
        value, matrix = values[name], (basis @ basis.T).astype(np.float32)
        uses = list(value.uses())
        projector = array_of(model.graph, matrix, f"{name}.projector")
        node = ir.node("MatMul", [value, projector])
        out = node.outputs[0]
        out.name, out.type, out.shape = f"{name}.projected", value.type, value.shape
        producer = value.producer()
        assert producer is not None
        model.graph.insert_after(producer, node)
        for use in uses:
            use.node.replace_input_with(use.idx, out)


def share(dense: int, places: int, kept: int, width: int) -> float:
    """Multiply-adds of a sliced model over the dense one's: all its layers read or write d."""
    return (dense * kept / width + places * kept * kept) / dense


def pruned(made: compress.Subject, work: float, correct: bool, folder: Path) -> dict[str, Any]:
    """The share of the neurons removed that leaves `work` of the dense model's multiply-adds."""
    started, dense = time.perf_counter(), macs(made.model)
    asked = Prune(
        neurons=(1 - work) * dense / of_neurons(made.model),
        multiple=1,
        correct=correct,
        max_drop=0.999,
    )
    result = prune(made, asked, OnnxRuntime())
    save(result.model, folder)
    return {
        "method": "pruned, corrected" if correct else "pruned",
        "macs": macs(folder / "model.onnx") / dense,
        "loss": loss_of(made, folder / "model.onnx", result.narrowing),
        "seconds": round(time.perf_counter() - started, 1),
    }


def of_neurons(path: Path) -> int:
    """Multiply-adds of the layers that make and read neurons."""
    model = load(path)
    nodes = by_name(model)
    infer(model)
    names = [
        name
        for each in groups(model)[0]
        if each.kind == "neurons"
        for name in (each.consumer, *each.producers)
    ]
    return sum(layer.k * layer.n for layer in map(layer_of, (nodes[name] for name in names)))


def line(row: dict[str, Any]) -> str:
    head = f"{row['model']:8} {row['method']:24}"
    if "reason" in row:
        return f"{head} {row['reason']}"
    energy = "  ".join(f"{each:.4f}" for each in row.get("energy", ()))
    figures = "  ".join(f"{name} {row[name]:.4g}" for name in ("macs", "loss", "seconds"))
    return f"{head} {figures}{f'  energy {energy}' if energy else ''}"


def main() -> None:
    asked, told = arguments(), list[dict[str, Any]]()
    stream = sys.stderr if asked.json else sys.stdout
    with tempfile.TemporaryDirectory() as temporary:
        for subject in (each for each in SUBJECTS if each.name in asked.subjects):
            try:
                for row in found(subject, Path(temporary) / subject.name, asked):
                    told.append({"model": subject.name, **row})
                    print(line(told[-1]), file=stream, flush=True)
            except MissingError as error:
                told.append({"model": subject.name, "method": "all", "reason": str(error)})
                print(line(told[-1]), file=stream, flush=True)
    if asked.json:
        print(json.dumps({"rows": told, "environment": {"cores": os.cpu_count(), "seed": 0}}))


if __name__ == "__main__":
    main()
