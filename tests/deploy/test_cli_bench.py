"""`llmdeploy bench` on a sentence encoder and on a causal engine with a cache."""

import json
from pathlib import Path
from typing import Any

import pytest
from llmdeploy import BuildError
from llmdeploy.deploy.footprint import footprint
from llmdeploy.toolchain import cli

from .causal import write_causal
from .conftest import write_engine


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert cli.call(["bench", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_two_engines_with_throughput_memory_and_a_cold_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_engine(tmp_path / "one"), write_engine(tmp_path / "two")
    where = ("-w", tmp_path / "none", "--shape", "2x8", "--rounds", 2, "--cold", 1)
    found = bench(capsys, one, two, *where)
    assert [each["model"] for each in found["rows"]] == [str(one), str(two)]
    for each in found["rows"]:
        assert each["method"] == "2x8"
        assert each["low_ms"] <= each["median_ms"] <= each["high_ms"]
        assert each["p90_low_ms"] <= each["p90_high_ms"] <= each["p99_high_ms"]
        assert each["rows_per_s"] == pytest.approx(2e3 / each["median_ms"], rel=1e-3)
        assert each["tokens_per_s"] == pytest.approx(8 * each["rows_per_s"], rel=1e-2)
        assert len(each["deciles"]) == 11
        assert each["call"] in ("faster", "slower", "within noise")
    for each in found["footprints"]:
        assert each["cold_ms"] == pytest.approx(each["open_ms"] + each["first_ms"])
        assert each["peak_bytes"] >= each["before_bytes"] > 1e7
    assert not (tmp_path / "none").exists()


def test_a_causal_engine_is_timed_in_prefill_and_in_decode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_causal(tmp_path / "causal")
    found = bench(capsys, path, "--shape", "2x8", "--rounds", 2, "--cold", 0, "-w", tmp_path / "no")
    assert [each["method"] for each in found["rows"]] == ["2x8 prefill", "2x8 decode"]
    prefill, decode = (each["tokens_per_s"] * each["median_ms"] / 1e3 for each in found["rows"])
    assert prefill == pytest.approx(16, rel=1e-2)
    assert decode == pytest.approx(2, rel=1e-2)
    assert found["footprints"] == []


def test_an_engine_that_no_text_is_enough_for_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_engine(tmp_path / "one"), write_engine(tmp_path / "two")
    told: dict[str, Any] = json.loads((two / "io.json").read_text())
    told["inputs"][0] |= {"role": "pixel_values", "shape": ["batch", 3]}
    (two / "io.json").write_text(json.dumps(told))
    (two / "tokenizer.json").unlink()
    assert cli.call(["bench", str(one), str(two), "-q", "-w", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert f"engines are timed on texts, and {two} takes input_ids [batch, 3]" in error


def test_an_engine_that_dies_alone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be run alone"):
        footprint(write_engine(tmp_path / "one"), [("", {})], runs=1)
