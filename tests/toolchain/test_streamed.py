"""Models larger than memory: in blocks they give the same feeds and the same ranges."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy.calibration import blocks
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain import replay as replaying_whole
from llmdeploy.toolchain.feeds.rolling import following
from llmdeploy.toolchain.feeds.streamed import continued, is_large
from llmdeploy.toolchain.int8.quantizing import calibrate, quantize
from llmdeploy.toolchain.replay import opened, replay
from llmdeploy.toolchain.weight_only.making import quantize as weigh
from llmdeploy.toolchain.weight_only.recipe import Recipe
from llmdeploy.toolchain.weight_only.rounds import Samples

from ..deploy.causal import write_causal
from .test_quantizing import batches, write


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "WHOLE_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)


@pytest.mark.usefixtures("in_blocks")
def test_the_next_tokens_feed_is_that_of_the_whole_model(tmp_path: Path):
    folder = write_causal(tmp_path / "causal")
    path, known = folder / "model.onnx", Signature.load(folder)
    assert is_large(path)
    ids = np.array([[4, 5, 6], [7, 8, 9]])
    feed = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.broadcast_to(np.arange(3), ids.shape).copy(),
        "past_key_0": np.zeros((2, 2, 0, 8), np.float32),
        "past_value_0": np.zeros((2, 2, 0, 8), np.float32),
    }
    (found,) = continued(path, known, [feed])
    wanted = following(known, feed, opened(path)(feed))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("in_blocks")
def test_a_model_that_fits_is_tried_whole_though_its_trial_is_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, feeds = write(tmp_path / "float"), batches(2)
    wanted = replay(model, feeds)
    monkeypatch.setattr(replaying_whole, "forward_blocks", None)  # nothing is run in blocks
    call = replaying_whole.replaying(model, large=False)
    for found, each in zip(call(feeds), wanted, strict=True):
        np.testing.assert_allclose(found["out"], each["out"], rtol=1e-5, atol=1e-6)


def test_blocks_give_the_ranges_and_the_graph_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, feeds = write(tmp_path / "float"), batches(8)

    def ranges(name: str) -> dict[str, dict]:
        (tmp_path / name).mkdir()
        calibrate(model, tmp_path / name, feeds[:6], mask="attention_mask", held_out=feeds[6:])
        return json.loads((tmp_path / name / "ranges.json").read_text())["ranges"]

    whole = ranges("whole")
    monkeypatch.setattr(blocks, "WHOLE_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20_000)  # one MatMul fits
    parts = ranges("parts")
    assert len(list((tmp_path / "parts").glob("ranges*.safetensors"))) == 2
    assert whole.keys() == parts.keys()
    for name, each in whole.items():
        for key in ("amax", "low", "high"):
            np.testing.assert_allclose(each[key], parts[name][key], rtol=1e-5)
        assert each["rows"] == parts[name]["rows"]
    (tmp_path / "quantize").mkdir()
    made = quantize(
        model,
        tmp_path / "parts",
        tmp_path / "quantize",
        feeds=feeds[6:],
        mask="attention_mask",
    )
    assert made["int8_share"] == 1.0
    assert made["mean_cosine_holdout"] > 0.999
    assert not list((tmp_path / "parts").glob(".between-*")), "nothing is left between blocks"


def test_the_budget_is_held_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, feeds = write(tmp_path / "float"), batches(8)
    (tmp_path / "ranges").mkdir()
    calibrate(model, tmp_path / "ranges", feeds[:6], mask="attention_mask", held_out=feeds[6:])

    def made(name: str, max_drop: float) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        return quantize(
            model,
            tmp_path / "ranges",
            tmp_path / name,
            max_drop=max_drop,
            feeds=feeds[6:],
            mask="attention_mask",
        )

    whole = made("whole", 1e-9)
    monkeypatch.setattr(blocks, "WHOLE_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20_000)  # one MatMul fits
    monkeypatch.setattr(replaying_whole, "opened", unexpected)
    parts, loose = made("parts", 1e-9), made("loose", 0.5)
    assert whole["int8_share"] == parts["int8_share"] == 0
    assert (loose["int8_share"], parts["sensitivity"]) == (1, {})
    for name in ("parts", "loose"):
        assert replay(tmp_path / name / "model.onnx", feeds[:1])[0].keys() == {"out"}


def test_weights_alone_are_compared_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, feeds = write(tmp_path / "float"), batches(8)
    samples = Samples(feeds[:6], feeds[6:], "attention_mask")

    def made(name: str) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        return weigh(model, tmp_path / name, recipe=Recipe(4, 32), samples=samples)

    whole = made("whole")
    monkeypatch.setattr(blocks, "WHOLE_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(replaying_whole, "opened", unexpected)
    parts = made("parts")
    assert parts["drop_holdout"] == pytest.approx(whole["drop_holdout"], rel=1e-3)


def unexpected(*_: Any) -> None:
    raise AssertionError("a model larger than memory was opened whole")
