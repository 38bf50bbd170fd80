"""FP8 and int16 activations beside INT8 and float: the Q/DQ graphs as they are written, on the CPU.

    python benchmarks/int8_formats.py [SUBJECT...] [--rtx] [--json]

Subjects are those of int8_accuracy.py, by default minilm. No kernel of these formats is on this
CPU: what is scored is the neutral graph, value by value; `--rtx` compiles the FP8 one with
TensorRT-RTX and gives the memory of its weights.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from int8_accuracy import environment, line, release, row, with_ours
from int8_data import MissingError, Subject
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.deploy.text import Encoder
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.replay import opened
from llmdeploy.toolchain.run import Run

PRECISIONS = ("int8", "fp8", "w8a16")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", default=["minilm"])
    parser.add_argument("--rtx", action="store_true")
    return with_ours(parser).parse_args()


def rows(subject: Subject, asked: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    first = release(subject, root, asked)
    with first.workspace.locked():
        stages.optimize(first)
        encoder = Encoder(first.folder("export"))
        wanted = subject.answer(opened(first.folder("optimize") / "model.onnx"), encoder)
        yield row(subject, "float", wanted, wanted, {})
        for precision in PRECISIONS:
            build = first.config.build.model_copy(update={"precision": precision})
            run = Run(first.config.model_copy(update={"build": build}), first.workspace)
            made = stages.quantize(run).results
            answers = subject.answer(opened(run.folder("quantize") / "model.onnx"), encoder)
            facts = {"int8_share": made["int8_share"], **compiled(run, asked)}
            yield row(subject, f"llmdeploy {precision}", answers, wanted, facts)


def compiled(run: Run, asked: argparse.Namespace) -> dict[str, Any]:
    """Megabytes of the weights of TensorRT-RTX's engine."""
    if not asked.rtx or run.config.build.precision == "w8a16":
        return {}
    facts = stages.engine(run, "tensorrt-rtx").results["facts"]
    return {"rtx_mb": facts["weights_memory_bytes"] / 1e6}


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as temporary:
        for subject in SUBJECTS:
            if subject.name not in asked.subjects:
                continue
            try:
                for each in rows(
                    subject, asked, (asked.workspace or Path(temporary)) / subject.name
                ):
                    found.append(each)
                    told = f"rtx_mb {each['rtx_mb']:.4g}" if "rtx_mb" in each else ""
                    out = sys.stderr if asked.json else sys.stdout
                    print(line(each), told, file=out, flush=True)
            except (MissingError, Error) as error:
                found.append({"model": subject.name, "method": "all", "reason": str(error)})
                print(line(found[-1]), file=sys.stderr)
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment(asked)}))


if __name__ == "__main__":
    main()
