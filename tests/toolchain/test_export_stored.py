import json
import struct
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ExportError
from llmdeploy.toolchain.exporter.stored import read_header, stored
from safetensors.numpy import save_file

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(4, np.int64)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_bytes_are_where_the_record_says(file: Path) -> None:
    found = stored(file.parent)
    assert found.keys() == TENSORS.keys()
    for name, one in found.items():
        data = file.read_bytes()[one.offset : one.offset + one.length]
        assert data == TENSORS[name].tobytes()
        assert one.shape == TENSORS[name].shape
    assert (found["a"].dtype, found["b"].dtype) == ("F32", "I64")


@pytest.mark.parametrize("left", [-1, -20])
def test_truncated(file: Path, left: int) -> None:
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ExportError, match=r"truncated: \d+ bytes where \d+ were expected.*again"):
        stored(file.parent)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, struct.pack("<Q", 5) + b"{"])
def test_no_safetensors_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ExportError, match="safetensors"):
        stored(file.parent)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        [],
    ],
)
def test_a_corrupt_header(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(ExportError, match="corrupt safetensors header"):
        read_header(path)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    names = {}
    for index, (name, array) in enumerate(TENSORS.items()):
        shard = f"model-0000{index + 1}-of-00002.safetensors"
        save_file({name: array}, tmp_path / shard)
        names[name] = shard
    index = {"metadata": {}, "weight_map": names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_shards(sharded: Path) -> None:
    found = stored(sharded)
    assert {one.file.name[:11] for one in found.values()} == {"model-00001", "model-00002"}


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ExportError, match=r"shard model-00002-of-00002\.safetensors is missing"):
        stored(sharded)


def test_a_missing_tensor(sharded: Path) -> None:
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["c"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(ExportError, match="tensor c is missing"):
        stored(sharded)


def test_an_index_that_leaves_the_folder(sharded: Path) -> None:
    path = sharded / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ExportError, match="outside the folder"):
        stored(sharded)


def test_neither_file_nor_index(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="neither"):
        stored(tmp_path)
