"""Weights copied, left in the checkpoint, or left there with the graph beside them."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from llmdeploy import ConfigError, ExportError, PassError
from llmdeploy.passes import load, save
from llmdeploy.toolchain import checkpoint as checkpoints
from llmdeploy.toolchain.exporter import export, reference
from llmdeploy.toolchain.referenced import weights_of
from llmdeploy.toolchain.replay import replay
from safetensors.numpy import load_file, save_file

IDS = np.array([[2, 7, 9, 3]])
FEED = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "token_type_ids": IDS * 0}


@pytest.fixture
def checkpoint(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "checkpoint"))


def made(checkpoint: Path, tmp_path: Path, **options: str) -> tuple[Path, dict[str, object]]:
    folder = tmp_path / "export"
    folder.mkdir()
    return folder, export(str(checkpoint), folder, **options)  # type: ignore[arg-type]


def in_bfloat16(checkpoint: Path) -> None:
    """Store the weights in bfloat16, and say nothing of it in config.json."""
    tensors = load_file(checkpoint / "model.safetensors")
    tensors = {name: each.astype(ml_dtypes.bfloat16) for name, each in tensors.items()}
    save_file(tensors, checkpoint / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    del config["dtype"]
    (checkpoint / "config.json").write_text(json.dumps(config))


def test_left_in_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    in_bfloat16(checkpoint)
    folder, results = made(checkpoint, tmp_path, weights="reference", dtype="auto")
    assert results["self_contained"] is False
    assert {"model.onnx", "weights.json"} <= {path.name for path in folder.iterdir()}
    assert not [path for path in folder.iterdir() if path.suffix in (".safetensors", ".data")]
    assert weights_of(folder) == checkpoint
    wanted = reference(str(checkpoint), [FEED], task="text-classification")
    for one, other in zip(replay(folder / "model.onnx", [FEED]), wanted, strict=True):
        rounded = other["logits"].astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_allclose(one["logits"].astype(np.float32), rounded, rtol=2**-7)
    whole = tmp_path / "whole"
    whole.mkdir()
    save(load(folder / "model.onnx", weights_of(folder)), whole)
    onnx.checker.check_model(str(whole / "model.onnx"))


def test_nobody_follows_the_reference_unasked(checkpoint: Path, tmp_path: Path) -> None:
    folder, _ = made(checkpoint, tmp_path, weights="reference")
    with pytest.raises(PassError, match="no external data"):
        load(folder / "model.onnx")


@pytest.mark.parametrize("change", ["gone", "grown", "other header"])
def test_a_checkpoint_that_changed(checkpoint: Path, tmp_path: Path, change: str) -> None:
    folder, _ = made(checkpoint, tmp_path, weights="reference")
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    if change == "gone":
        path.unlink()
    elif change == "grown":
        path.write_bytes(content + b"x")
    else:
        content[20] ^= 1
        path.write_bytes(content)
    with pytest.raises(
        ExportError, match=r"the weights model\.safetensors (are gone|were changed)"
    ):
        weights_of(folder)


def test_weights_that_must_be_written_cannot_be_left(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"as F32.*--weights copy, or --dtype float32"):
        made(checkpoint, tmp_path, weights="reference", dtype="float16")


def test_beside_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    before = checkpoints.digest(checkpoint)
    folder, results = made(checkpoint, tmp_path, weights="in-place")
    assert results["self_contained"] is False
    onnx.checker.check_model(str(checkpoint / "model.onnx"), full_check=True)
    load(checkpoint / "model.onnx")
    assert not list(checkpoint.glob(".*"))
    assert checkpoints.digest(checkpoint) == before
    assert (folder / "model.onnx").read_bytes() == (checkpoint / "model.onnx").read_bytes()


def test_not_beside_links(checkpoint: Path, tmp_path: Path) -> None:
    """The hub's cache: a link to a blob."""
    path = checkpoint / "model.safetensors"
    path.rename(tmp_path / "blob")
    path.symlink_to(tmp_path / "blob")
    with pytest.raises(ConfigError, match="is a link"):
        made(checkpoint, tmp_path, weights="in-place")
    assert not (checkpoint / "model.onnx").exists()


def test_an_unknown_way(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no way 'teleport' to keep weights"):
        made(checkpoint, tmp_path, weights="teleport")


def test_shards_and_links_are_copied(tiny_bert: Path, tmp_path: Path) -> None:
    """A checkpoint as the hub lays it out: five shards, each a link to a blob."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abc"
    model.save_pretrained(blobs, max_shard_size="20KB")
    shards = sorted(blobs.glob("*.safetensors"))
    assert len(shards) >= 5
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    folder, results = made(snapshot, tmp_path)
    assert results["self_contained"] is True
    assert not any(path.is_symlink() for path in folder.iterdir())
    onnx.checker.check_model(str(folder / "model.onnx"))
    wanted = reference(str(tiny_bert), [FEED], task="text-classification")
    for one, other in zip(replay(folder / "model.onnx", [FEED]), wanted, strict=True):
        np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-4)
