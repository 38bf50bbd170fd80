"""What a prompt costs with the logits of its last place alone beside those of all its places.

    python benchmarks/prompts.py [--checkpoint DIR] [--precision fp32|w8|int4]... [--tokens N]...
        [--threads 2] [--workspace DIR] [--json]

SmolLM2-135M unless `--checkpoint` names another causal language model. Each engine against itself,
interleaved in one run: `faster` is the time with all logits over that with the last, `all_mb` and
`last_mb` are the most memory that a process holds which opens the engine and runs the prompt once.
`equal` says whether the last logits are the same bits.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from int8_data import MissingError
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.deploy.footprint import footprint
from llmdeploy.deploy.latency import measure
from llmdeploy.deploy.ort_session import KEEP
from llmdeploy.toolchain import registry, stages
from llmdeploy.toolchain.config import Build, Config, Model, Quantize
from llmdeploy.toolchain.feeds import timed_phases
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

SUBJECT = next(subject for subject in SUBJECTS if subject.name == "smollm2")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--precision", action="append", choices=("fp32", "w8", "int4"))
    parser.add_argument("--tokens", action="append", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def rows(asked: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    checkpoint = str(asked.checkpoint or SUBJECT.checkpoint(root))
    for precision in asked.precision or ("fp32", "w8", "int4"):
        options = {"onnxruntime": {"threads": asked.threads}}
        config = Config(
            model=Model(checkpoint=checkpoint),
            quantize=Quantize(method="rtn"),
            build=Build.model_validate({"precision": precision, "options": options}),
        )
        run = Run(config, Workspace(root / "artifacts"))
        with run.workspace.locked():
            stages.engine(run, "onnxruntime")
            for tokens in asked.tokens or (32, 128, 512):
                yield {"engine": precision, "tokens": tokens, **one(run, tokens)}


def one(run: Run, tokens: int) -> dict[str, Any]:
    """Time, memory and the last logits of one prompt, either way."""
    folder = run.folder("engine/onnxruntime")
    (last,) = timed_phases(run, "", [(1, tokens)])["prefill"].values()
    whole = {name: array for name, array in last.items() if name != KEEP}
    with registry.find("backends", "onnxruntime")().runner(folder) as call:
        ways = {"all": lambda _: call(whole), "last": lambda _: call(last)}
        times = {each.name: each.median_ms for each in measure(ways, {"": last})}
        equal = call(whole)["logits"][:, -1:].tobytes() == call(last)["logits"].tobytes()
    held = {way: footprint(folder, [("", feed)]) for way, feed in (("all", whole), ("last", last))}
    return {
        "all_ms": round(times["all"], 2),
        "last_ms": round(times["last"], 2),
        "faster": round(times["all"] / times["last"], 3),
        **{f"{way}_mb": round(found.peak_bytes / 1e6) for way, found in held.items()},
        "equal": equal,
    }


def main() -> None:
    asked = arguments()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for each in rows(asked, asked.workspace or Path(temporary)):
                found.append(each)
                shown = "  ".join(f"{name} {value}" for name, value in each.items())
                print(shown, file=sys.stderr if asked.json else sys.stdout, flush=True)
        except (MissingError, Error) as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code if isinstance(error, Error) else 4)
    if asked.json:
        print(json.dumps({"rows": found}))


if __name__ == "__main__":
    main()
