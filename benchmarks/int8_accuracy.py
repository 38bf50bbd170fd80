"""Accuracy of INT8 beside float and beside the peers, on data nobody was calibrated on.

    python benchmarks/int8_accuracy.py [SUBJECT...] [--nncf PYTHON] [--optimum PYTHON]
        [--preset NAME] [--pairs true|false] [--vocabulary auto|float] [--head]
        [--only-ours] [--json]

Subjects: minilm (calibrated on STS 2014, scored on STS 2015 by Spearman and by the cosine of its
embeddings with float's), sst2 (accuracy), banking77 (logistic regression on frozen embeddings),
splade (cosine of sparse vectors), stories260k and smollm2 (perplexity: less is better). Peers
quantise the same optimised graph with the same samples. `of float` is the score over float's;
`size_mb` that of the file that is scored, its weights with it.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
from int8_data import Answers, MissingError, Subject, write_texts
from int8_methods import methods, ours, session
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.deploy.text import Encoder
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, Quantize
from llmdeploy.toolchain.feeds import calibration_feeds
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

COLUMNS = (
    "score",
    "of_float",
    "mean_cosine",
    "least_cosine",
    "agree",
    "int8_share",
    "size_mb",
    "seconds",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(names))
    parser.add_argument("--nncf", default=os.environ.get("LLMDEPLOY_NNCF"), metavar="PYTHON")
    parser.add_argument("--optimum", default=os.environ.get("LLMDEPLOY_OPTIMUM"), metavar="PYTHON")
    parser.add_argument("--only-ours", action="store_true")
    return with_ours(parser).parse_args()


def with_ours(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options that `release` and what prints its rows read."""
    parser.add_argument("--preset", default="balanced", help="of ours: speed, balanced, accuracy")
    parser.add_argument(
        "--pairs", default="auto", choices=["auto", "true", "false"], help="of ours"
    )
    parser.add_argument("--vocabulary", default="auto", choices=["auto", "float"], help="of ours")
    parser.add_argument("--head", action="store_true", help="of ours: the output head in INT8 too")
    parser.add_argument("--count", type=int, help="calibration samples")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser


def release(subject: Subject, root: Path, asked: argparse.Namespace) -> Run:
    root.mkdir(parents=True, exist_ok=True)
    write_texts(subject.texts(), root / "texts.jsonl")
    config = Config(
        model=Model(checkpoint=subject.checkpoint(root)),
        calibration=Calibration(
            samples=str(root / "texts.jsonl"),
            count=asked.count or subject.count,
            pairs="auto" if asked.pairs == "auto" else asked.pairs == "true",
            max_length=subject.max_length,
            max_drop=asked.max_drop,
            preset=asked.preset,
        ),
        quantize=Quantize(vocabulary=asked.vocabulary, head=asked.head),
        build=Build(precision="int8", options={"onnxruntime": {"threads": asked.threads}}),
    )
    return Run(config, Workspace(root / "artifacts"))


def rows(subject: Subject, asked: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    run = release(subject, root, asked)
    with run.workspace.locked():
        stages.optimize(run)
        encoder = Encoder(run.folder("export"))
        graph = run.folder("optimize") / "model.onnx"
        with session(graph, asked.threads) as model:
            wanted = subject.answer(model, encoder)
        yield row(subject, "float", wanted, wanted, size(graph))
        opened, facts = ours(run)
        with opened as model:
            facts |= size(run.folder("engine/onnxruntime") / "model.onnx")
            yield row(subject, "llmdeploy", subject.answer(model, encoder), wanted, facts)
        feeds = calibration_feeds(run)
    for method in [] if asked.only_ours else methods(asked.nncf, asked.optimum):
        folder = root / "peers"
        folder.mkdir(exist_ok=True)
        try:
            path, facts = method.make(graph, feeds, folder)
            with session(path, asked.threads) as model:
                facts = {**facts, **size(path)}
                yield row(subject, method.name, subject.answer(model, encoder), wanted, facts)
        except Exception as error:  # a peer's failure is its figure
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            yield {"model": subject.name, "method": method.name, "reason": reason}


def size(path: Path) -> dict[str, float]:
    """Of a graph and the weights beside it."""
    whole = [path, *path.parent.glob(f"{path.name}*data")]
    return {"size_mb": sum(each.stat().st_size for each in whole) / 1e6}


def row(
    subject: Subject, method: str, found: Answers, wanted: Answers, facts: dict[str, Any]
) -> dict[str, Any]:
    return {"model": subject.name, "method": method, **subject.score(found, wanted), **facts}


def main() -> None:
    asked = arguments()
    chosen = [each for each in SUBJECTS if not asked.subjects or each.name in asked.subjects]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for subject in chosen:
            try:
                for each in rows(
                    subject, asked, (asked.workspace or Path(temporary)) / subject.name
                ):
                    found.append(each)
                    print(line(each), file=sys.stderr if asked.json else sys.stdout, flush=True)
            except (MissingError, Error) as error:
                found.append({"model": subject.name, "method": "all", "reason": str(error)})
                print(line(found[-1]), file=sys.stderr if asked.json else sys.stdout, flush=True)
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment(asked)}))


def line(each: dict[str, Any]) -> str:
    head = f"{each['model']:12} {each['method']:24}"
    if "reason" in each:
        return f"{head} {each['reason']}"
    shown = (f"{name} {each[name]:.5g}" for name in COLUMNS if name in each)
    return f"{head} {'  '.join(shown)}"


def environment(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "threads": asked.threads,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
        "seed": 0,
    }


if __name__ == "__main__":
    main()
