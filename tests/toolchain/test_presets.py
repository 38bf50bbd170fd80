"""What a preset lets INT8 cost when it runs, on the block of a transformer of `test_quantizing`."""

from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.passes import load
from llmdeploy.toolchain.config import Calibration, Config
from llmdeploy.toolchain.int8.presets import PRESETS
from llmdeploy.toolchain.int8.quantizing import calibrate, quantize
from llmdeploy.toolchain.verbs import given

from .test_quantizing import batches, write


def test_the_presets_are_those_that_the_configuration_takes() -> None:
    assert set(get_args(Calibration.model_fields["preset"].annotation)) == set(PRESETS)
    assert Calibration().preset == "balanced"


def test_the_command_line_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "llmdeploy.toml"
    config.write_text('[calibration]\npreset = "accuracy"\n')
    asked = given(config, tmp_path / "w", force=False, quiet=True, verb="build", preset="speed")
    assert asked.config.calibration.preset == "speed"
    with pytest.raises(ConfigError, match="preset"):
        given(config, tmp_path / "w", force=False, quiet=True, verb="build", preset="fast")


def made(model: Path, root: Path, preset: str) -> tuple[dict, Counter]:
    feeds = batches(8)
    for name in ("calibrate", "quantize"):
        (root / name).mkdir(parents=True)
    options = {"mask": "attention_mask", "held_out": feeds[6:], "preset": preset}
    calibrate(model, root / "calibrate", feeds[:6], **options)
    found = quantize(model, root / "calibrate", root / "quantize", feeds=feeds[6:])
    nodes = Counter(node.op_type for node in load(root / "quantize/model.onnx").graph)
    return found, nodes


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """The block with columns of its first weight of very different sizes: Gelu's channels."""
    import onnx
    from onnx import numpy_helper

    path = write(tmp_path / "float", outlier=1.0)
    model = onnx.load(path)
    weights = {each.name: each for each in model.graph.initializer}
    factor = np.geomspace(0.02, 3.0, 96).astype(np.float32)
    for name, scale in (("w", factor), ("v", 1 / factor[:, None])):
        array = numpy_helper.to_array(weights[name]) * scale
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


def test_speed_inserts_nothing_and_accuracy_what_helps(uneven: Path, tmp_path: Path) -> None:
    fast, nodes = made(uneven, tmp_path / "fast", "speed")
    assert not {"Mul", "Gather"} & set(nodes - Counter({"Gather": 1}))
    assert fast["layers"][1]["smoothing"] is None
    right, costly = made(uneven, tmp_path / "right", "accuracy")
    assert costly["Mul"] == 1
    assert right["layers"][1]["smoothing"] is not None
    assert right["mean_cosine_holdout"] > fast["mean_cosine_holdout"]


def test_balanced_inserts_only_what_is_worth_it(uneven: Path, tmp_path: Path) -> None:
    even, nodes = made(write(tmp_path / "even", outlier=1.0), tmp_path / "a", "balanced")
    assert "Mul" not in nodes
    assert even["layers"][1]["smoothing"] is None
    _, costly = made(uneven, tmp_path / "b", "balanced")
    assert costly["Mul"] == 1, "without it the error is more than twenty times as large"


def test_what_is_only_moved_has_its_real_range(tmp_path: Path) -> None:
    found, nodes = made(write(tmp_path / "float", outlier=1.0), tmp_path / "a", "speed")
    low, high = found["layers"][1]["range"]
    assert -0.5 < low < 0 < high, "Gelu's outputs: hardly below zero"
    assert nodes["Add"] == 4, "two biases, the residual, the shift"


def test_other_shares_are_measured(tmp_path: Path) -> None:
    found, _ = made(write(tmp_path / "float"), tmp_path / "a", Config().calibration.preset)
    shares = [each["int8_share"] for each in found["curve"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == found["int8_share"]
    drops = [each["drop"] for each in found["curve"]]
    assert drops[0] == max(drops)
    assert all(drop >= 0 for drop in drops)
