from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import ExportError
from llmdeploy.toolchain.exporter import data
from llmdeploy.toolchain.exporter.stored import Stored
from numpy.typing import NDArray

NAMES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}


def store(folder: Path, array: NDArray[np.generic], dtype: str) -> Stored:
    path = folder / f"{dtype}.bin"
    path.write_bytes(b"header!!" + array.tobytes())
    return Stored("w", path, dtype, array.shape, 8, array.nbytes)


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(tmp_path: Path, dtype: str, bad: float) -> None:
    array = np.linspace(-5, 5, 1000).astype(NAMES[dtype])
    data.check(store(tmp_path, array, dtype))
    array[777] = bad
    with pytest.raises(ExportError, match="tensor w holds NaN or infinity"):
        data.check(store(tmp_path, array, dtype))


def test_the_largest_numbers_are_finite(tmp_path: Path) -> None:
    for dtype, kind in NAMES.items():
        largest = np.array([ml_dtypes.finfo(kind).max, ml_dtypes.finfo(kind).min], kind)
        data.check(store(tmp_path, largest, dtype))


def test_integers_are_not_tested(tmp_path: Path) -> None:
    data.check(store(tmp_path, np.full(10, -1), "I64"))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_cast_in_blocks(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "BLOCK", 64)
    array = np.random.default_rng(0).standard_normal(1000).astype(NAMES[dtype])
    blocks = list(data.cast(store(tmp_path, array, dtype), ir.DataType.FLOAT))
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate(blocks), array.astype(np.float32))


def test_a_cast_that_overflows(tmp_path: Path) -> None:
    tensor = store(tmp_path, np.array([1e5], np.float32), "F32")
    with pytest.raises(ExportError, match="does not fit float16"):
        list(data.cast(tensor, ir.DataType.FLOAT16))


def test_a_cast_that_overflows_bfloat16(tmp_path: Path) -> None:
    """Float32's largest numbers round to its infinity."""
    tensor = store(tmp_path, np.array([np.finfo(np.float32).max], np.float32), "F32")
    with pytest.raises(ExportError, match=r"does not fit bfloat16.*--dtype float32"):
        list(data.cast(tensor, ir.DataType.BFLOAT16))


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    tensor = store(tmp_path, np.zeros(100, np.float32), "F32")
    tensor.file.write_bytes(tensor.file.read_bytes()[:200])
    with pytest.raises(ExportError, match="truncated"):
        data.check(tensor)


def test_same(tmp_path: Path) -> None:
    one = np.arange(50, dtype=np.float32)
    (tmp_path / "other").mkdir()
    first = store(tmp_path, one, "F32")
    assert data.same(first, store(tmp_path / "other", one.copy(), "F32"))
    assert not data.same(first, store(tmp_path / "other", one + 1, "F32"))


def test_tensors_are_appended_at_pages(tmp_path: Path) -> None:
    file = data.DataFile(tmp_path / "model.onnx.data")
    first = file.append([np.arange(3, dtype=np.float32), np.arange(3, dtype=np.float32)])
    second = file.append([np.ones(2, np.int64)])
    assert first == (0, 24)
    assert second == (4096, 16)
    content = (tmp_path / "model.onnx.data").read_bytes()
    np.testing.assert_array_equal(np.frombuffer(content[4096:], np.int64), [1, 1])


def test_clone(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"x" * 100_000)
    how = data.clone(source, tmp_path / "b")
    assert how in {"reflink", "copy_file_range", "copy"}
    assert (tmp_path / "b").read_bytes() == source.read_bytes()
    assert (tmp_path / "b").stat().st_nlink == 1
    assert not (tmp_path / "b").is_symlink()


def test_clone_where_the_kernel_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.copy_file_range", raising=False)
    monkeypatch.setattr(data, "_reflink", lambda *_: False)
    (tmp_path / "a").write_bytes(b"x" * 1000)
    assert data.clone(tmp_path / "a", tmp_path / "b") == "copy"
    assert (tmp_path / "b").read_bytes() == b"x" * 1000
