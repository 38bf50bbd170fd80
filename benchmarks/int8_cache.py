"""A decoder's cache in int8 beside float's: perplexity, bytes, time and memory.

    python benchmarks/int8_cache.py [stories260k|smollm2]... [--precision fp32]... [--chunk 8]
        [--tokens 2048] [--no-score] [--no-latency] [--workspace DIR] [--json]

The engines of `[quantize] cache = "float"` and `"int8"`, calibrated as the INT8 benchmarks are and
scored on the text they are scored on, read with the cache, `--chunk` tokens at a time (1: as it is
written), so that every token sees what the cache kept of those before it. `prompt` is 512 tokens
at once from an empty cache, `step` one token after so many, both medians of interleaved runs; `MB`
is the most that a process held that ran such a step after the longest cache.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_data import DATA, Array, MissingError, Run, Subject, need, write_texts
from int8_language import tokens
from int8_subjects import SUBJECTS
from llmdeploy import Error
from llmdeploy.deploy.footprint import footprint
from llmdeploy.deploy.latency import measure
from llmdeploy.deploy.signature import Signature
from llmdeploy.deploy.text import Encoder
from llmdeploy.toolchain import registry, stages
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, Quantize
from llmdeploy.toolchain.run import Run as Release
from llmdeploy.toolchain.workspace import Workspace

#: The text that a model is scored on, and tokens of a row.
TEXTS = {
    "stories260k": ("tinystories_sample.txt", 256),
    "smollm2": ("wikitext2.test.txt", 512),
}
#: Tokens in the cache before a step that is timed, as far as the model takes so many.
AFTER, PROMPT = (512, 2048), 512
COLUMNS = ("perplexity", "of_float", "bytes", "prompt_ms", "step_512", "step_2048", "mb")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*TEXTS, []])
    parser.add_argument("--precision", action="append", help="of the weights; fp32")
    parser.add_argument("--chunk", type=int, default=8, help="tokens read at a time")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens that are scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-score", action="store_true", help="time alone")
    parser.add_argument("--no-latency", action="store_true", help="where others use the machine")
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def release(
    root: Path, subject: Subject, asked: argparse.Namespace, kinds: tuple[str, str]
) -> Release:
    """The run of a precision and a kind of cache."""
    precision, cache = kinds
    config = Config(
        model=Model(checkpoint=subject.checkpoint(root)),
        calibration=Calibration(
            samples=str(root / "texts.jsonl"), count=subject.count, max_length=subject.max_length
        ),
        quantize=Quantize.model_validate({"cache": cache}),
        build=Build.model_validate(
            {"precision": precision, "options": {"onnxruntime": {"threads": asked.threads}}}
        ),
    )
    return Release(config, Workspace(root / "artifacts"))


def built(run: Release, to: Path) -> Path:
    """The engine with its io.json, kept from the next release of the same workspace."""
    engine = run.folder(stages.engine(run, "onnxruntime").name)
    return Path(shutil.copytree(engine, to, dirs_exist_ok=True))


def feed_of(known: Signature, ids: Array, past: Mapping[str, Array]) -> dict[str, Array]:
    """Tokens [rows, n] after what the cache holds."""
    before = next(iter(past.values())).shape[2]
    places = np.broadcast_to(np.arange(before, before + ids.shape[1]), ids.shape)
    whole = np.ones((len(ids), before + ids.shape[1]))
    given = {"input_ids": ids, "position_ids": places, "attention_mask": whole}
    named = {each.name: (each.role, each.dtype) for each in known.inputs if each.role in given}
    return {name: given[role].astype(kind) for name, (role, kind) in named.items()} | dict(past)


def empty(known: Signature, rows: int, length: int = 0, seed: int = 0) -> dict[str, Array]:
    """A cache of so many tokens: of noise, where there are any."""
    random = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for each in known.inputs:
        if each.role.startswith("past_"):
            shape = (rows, int(each.shape[1]), length, int(each.shape[3]))
            whole = each.dtype == "int8"
            noise = random.integers(-127, 128, shape) if whole else random.normal(size=shape)
            made[each.name] = noise.astype(each.dtype)
    return made


def read(run: Run, known: Signature, rows: Array, chunk: int) -> Array:
    """The log-likelihoods of rows [rows, tokens], `chunk` tokens at a time with the cache."""
    past, found = empty(known, len(rows)), list[Array]()
    grown = {each.name.replace("past", "present", 1): each.name
             for each in known.inputs if each.role.startswith("past_")}  # fmt: skip
    for start in range(0, rows.shape[1] - 1, chunk):
        ids = rows[:, start : min(start + chunk, rows.shape[1] - 1)]
        outputs = run(feed_of(known, ids, past))
        past = {name: outputs[present] for present, name in grown.items()}
        after = rows[:, start + 1 : start + 1 + ids.shape[1]]
        found.append(likelihood(outputs["logits"], after))
    return np.concatenate(found, axis=1)


def likelihood(logits: Array, after: Array) -> Array:
    """Of the tokens that came, [rows, n], in nats."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    taken = np.take_along_axis(wide, after[..., None], axis=-1)[..., 0]
    return taken - np.log(np.exp(wide).sum(axis=-1))


def rows_of(subject: Subject, encoder: Encoder, count: int) -> Array:
    file, length = TEXTS[subject.name]
    ids = tokens(encoder, need(DATA / "text" / file).read_text(encoding="utf-8"))
    rows = max(1, count // length)
    return ids[: rows * length].reshape(rows, length).astype(np.int64)


def of_precision(
    root: Path, subject: Subject, precision: str, asked: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Float's cache and int8's, side by side."""
    folders = {
        kind: built(release(root, subject, asked, (precision, kind)), root / f"{precision}-{kind}")
        for kind in ("float", "int8")
    }
    known = {kind: Signature.load(folder) for kind, folder in folders.items()}
    rows = rows_of(subject, Encoder(folders["float"]), asked.tokens)
    backend, first = registry.find("backends", "onnxruntime")(), 0.0
    with ExitStack() as stack:
        calls = {kind: stack.enter_context(backend.runner(path)) for kind, path in folders.items()}
        timed = {} if asked.no_latency else times(calls, known)
        for kind, call in calls.items():
            scored: dict[str, float] = {}
            if not asked.no_score:
                found = [read(call, known[kind], row[None], asked.chunk) for row in rows]
                perplexity = float(np.exp(-np.concatenate(found).mean()))
                first = first or perplexity
                scored = {"perplexity": perplexity, "of_float": perplexity / first}
            yield {
                "model": subject.name,
                "method": f"{precision}, {kind} cache",
                **scored,
                "bytes": sum(each[0].nbytes for each in empty(known[kind], 1, 1).values()),
                **timed.get(kind, {}),
                **({} if asked.no_latency else memory(folders[kind], known[kind])),
            }


def times(calls: Mapping[str, Run], known: Mapping[str, Signature]) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, both engines in turn at each shape."""
    found: dict[str, dict[str, float]] = {kind: {} for kind in calls}
    shapes = {"prompt_ms": (0, PROMPT)} | {f"step_{after}": (after, 1) for after in AFTER}
    for name, (past, new) in shapes.items():
        if past + new > room(known["float"]):
            continue
        ids = np.full((1, new), 5)
        fed = {kind: feed_of(each, ids, empty(each, 1, past)) for kind, each in known.items()}
        engines = {kind: partial(_always, calls[kind], fed[kind]) for kind in calls}
        for each in measure(engines, {name: fed["float"]}):
            found[each.name][name] = each.median_ms
    return found


def _always(call: Run, fed: Mapping[str, Array], _: object) -> Mapping[str, Array]:
    return call(fed)


def memory(folder: Path, known: Signature) -> dict[str, float]:
    past = min(AFTER[-1], room(known) - 1)
    feed = feed_of(known, np.full((1, 1), 5), empty(known, 1, past))
    return {"mb": footprint(folder, [("", feed)], runs=1).peak_bytes / 1e6}


def room(known: Signature) -> int:
    total = known.dims.get("total")
    return total.max if total and total.max else AFTER[-1] + 1


def subject_rows(subject: Subject, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        aside = stack.enter_context(tempfile.TemporaryDirectory())
        root = (asked.workspace or Path(aside)) / subject.name
        root.mkdir(parents=True, exist_ok=True)
        write_texts(subject.texts(), root / "texts.jsonl")
        for precision in asked.precision or ["fp32"]:
            yield from of_precision(root, subject, precision, asked)


def main() -> int:
    asked = arguments()
    rows: list[dict[str, Any]] = []
    for subject in SUBJECTS:
        if subject.name in (asked.models or TEXTS):
            try:
                rows += subject_rows(subject, asked)
            except (Error, MissingError) as error:
                print(f"{subject.name}: {error}", file=sys.stderr)
    environment = {"threads": asked.threads, "cores": os.cpu_count(), "chunk": asked.chunk,
                   "onnxruntime": ort.__version__, "machine": platform.machine()}  # fmt: skip
    if asked.json:
        print(json.dumps({"rows": rows, "environment": environment}))
    else:
        print(f"| model | method | {' | '.join(COLUMNS)} |\n|{'---|' * (2 + len(COLUMNS))}")
        for row in rows:
            cells = [f"{row[key]:.5g}" if key in row else "" for key in COLUMNS]
            print(f"| {row['model']} | {row['method']} | {' | '.join(cells)} |")
    return 0 if rows else 1


if __name__ == "__main__":
    raise SystemExit(main())
