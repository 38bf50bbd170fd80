"""A stage that is done again says why."""

from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain.changed import changed, reason
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Stage, Workspace

INPUTS = {"export": "a" * 64, "samples": "b" * 64}
OPTIONS: dict[str, Any] = {
    "max_length": 32,
    "assets": "c" * 64,
    "profile": {"": {"batch": [1, 1, 8]}},
    "keep": [],
}


def stage(**more: Any) -> Stage:
    parts: dict[str, Any] = {
        "inputs": INPUTS,
        "options": OPTIONS,
        "versions": {"onnx": "1.19"},
        **more,
    }
    return Stage(
        name="calibrate",
        key="",
        seconds=0.0,
        peak_memory_bytes=0,
        results={},
        files={},
        stats={},
        **parts,
    )


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"options": {**OPTIONS, "max_length": 24}}, "max-length 32 -> 24"),
        ({"inputs": {**INPUTS, "samples": "d" * 64}}, "other samples"),
        ({"options": {**OPTIONS, "assets": "d" * 64}}, "other assets"),
        ({"options": {**OPTIONS, "keep": ["x" * 80]}}, "other keep"),
        (
            {"options": {**OPTIONS, "profile": {"": {"batch": [1, 2, 8]}}}},
            "profile.batch [1, 1, 8] -> [1, 2, 8]",
        ),
        ({"options": {**OPTIONS, "seed": 1}}, "seed nothing -> 1"),
        ({"versions": {"onnx": "1.20"}}, "onnx 1.19 -> 1.20"),
    ],
)
def test_what_is_not_as_it_was_is_named(parts: dict[str, Any], words: str) -> None:
    assert changed(stage(), stage(**parts)) == (words,)


def test_many_reasons_are_one_short_line() -> None:
    other = stage(inputs={"export": "e" * 64, "samples": "f" * 64}, versions={"onnx": "2"})
    again = stage(inputs=other.inputs, options={"max_length": 24}, versions=other.versions)
    assert reason(stage(), other) == "other export, other samples, onnx 1.19 -> 2"
    assert reason(stage(), again).startswith("other export, other samples, max-length 32 -> 24, ")
    assert reason(stage(), again).endswith(" 4 more")
    assert reason(stage(), stage()) == "its files are not as they were made"


def test_a_run_tells_why_and_nothing_where_nothing_was_or_all_is_fresh(tmp_path: Path) -> None:
    told: list[str] = []

    def do(length: int, *, force: bool = False) -> None:
        run = Run(Config(), Workspace(tmp_path), force, tell=told.append)
        options = {"max_length": length}
        run.stage("calibrate", _work, inputs={}, options=options, packages=())

    do(32)
    do(32)
    assert told == []
    do(24)
    assert told == ["again: max-length 32 -> 24"]
    do(24, force=True)
    assert told[1:] == ["again: --force"]
    (tmp_path / "calibrate" / "ranges").write_text("damaged")
    do(24)
    assert told[2:] == ["again: its files are not as they were made"]


def _work(folder: Path) -> dict[str, Any]:
    (folder / "ranges").write_text("")
    return {}
