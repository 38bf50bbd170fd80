"""Where data and checkpoints of the INT8 benchmark are, and what a subject of it is.

Data lies in the folder that the environment's LLMDEPLOY_DATA names, by default ../shared/data
beside the repository; a subject whose data or model is not there is skipped with the reason.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llmdeploy.deploy.text import Encoder
from numpy.typing import NDArray

DATA = Path(
    os.environ.get("LLMDEPLOY_DATA") or Path(__file__).resolve().parent.parent / "../shared/data"
)
Array = NDArray[Any]
#: A model's outputs for a feed.
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
#: What a run gives on the evaluation data: arrays that `figures` compares with float's.
Answers = dict[str, Array]


class MissingError(Exception):
    """A subject cannot be had here, and why."""


@dataclass(frozen=True)
class Subject:
    """A model, the texts it is calibrated on, and how it answers and is scored.

    `score` takes a run's answers and float's, and gives the figures of the row.
    """

    name: str
    checkpoint: Callable[[Path], str]
    texts: Callable[[], list[str]]
    answer: Callable[[Run, Encoder], Answers]
    score: Callable[[Answers, Answers], dict[str, float]]
    count: int = 512
    max_length: int = 128


def need(path: Path) -> Path:
    if not path.exists():
        raise MissingError(f"{path.name} is not there: set LLMDEPLOY_DATA")
    return path


def rows_of(path: Path, delimiter: str = "\t") -> list[list[str]]:
    with need(path).open(encoding="utf-8", newline="") as file:
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        return list(csv.reader(file, delimiter=delimiter, quoting=quoting))


def batched(texts: Sequence[str], encode: Callable[[list[str]], Array], size: int = 32) -> Array:
    """One row a text; texts of one length together, in their own order again at the end."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    parts = [
        encode([texts[index] for index in order[start : start + size]])
        for start in range(0, len(order), size)
    ]
    made = np.concatenate(parts)
    result = np.empty_like(made)
    result[order] = made
    return result


def outputs(run: Run, encoder: Encoder, texts: list[str], name: str, length: int = 128) -> Array:
    return batched(texts, lambda part: run(encoder.encode(part, max_length=length))[name])


def converted(script: str, *arguments: str) -> Callable[[Path], str]:
    """A checkpoint that a converter beside the data makes in the folder of the run."""

    def make(root: Path) -> str:
        out = root / "checkpoint"
        if not (out / "config.json").exists():
            path = need(DATA.parent / "convert" / script)
            command = [sys.executable, str(path), *arguments, str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MissingError(done.stderr.strip().splitlines()[-1])
        return str(out)

    return make


def fixed(text: str) -> Callable[[Path], str]:
    return lambda _: text


def write_texts(texts: Sequence[str], path: Path) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
