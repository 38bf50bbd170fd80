"""Models larger than memory: in blocks they give the same feeds and the same ranges."""

import json
from pathlib import Path

import numpy as np
import pytest
from llmdeploy.calibration import blocks
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain.feeds.rolling import following
from llmdeploy.toolchain.feeds.streamed import continued, is_large
from llmdeploy.toolchain.int8.quantizing import calibrate, quantize
from llmdeploy.toolchain.replay import opened

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
