"""A bundle's folder is opened when what is opened of it has the digests of its manifest."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from llmdeploy import BundleError
from llmdeploy.deploy.bundle import unpack
from llmdeploy.deploy.runtime import load
from llmdeploy.toolchain import cli


@pytest.fixture
def folder(tmp_path: Path, bundle: Path) -> Path:
    return unpack(bundle, tmp_path / "unpacked")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


OPENED: dict[str, Callable[[Path], object]] = {
    "engine": lambda f: flip(f / "engines/onnxruntime/model.onnx"),
    "tokenizer": lambda f: flip(f / "model/tokenizer.json"),
    "settings": lambda f: (f / "engines/onnxruntime/engine.json").write_text("{}"),
    "rules": lambda f: (f / "model/generation_config.json").write_text("{}"),
    "missing": lambda f: (f / "model/io.json").unlink(),
}


@pytest.mark.parametrize("kind", OPENED)
def test_a_changed_folder_is_not_opened(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    OPENED[kind](folder)
    for path in times.keys() & set(folder.rglob("*")):
        os.utime(path, ns=(times[path].st_atime_ns, times[path].st_mtime_ns))
    with pytest.raises(BundleError, match=r"was changed|was added|is missing"):
        load(folder)
    assert cli.call(["run", str(folder), "the train"]) == 3
    assert "take the bundle from its archive again" in capsys.readouterr().err


def test_what_is_not_opened_is_not_read(folder: Path) -> None:
    flip(folder / "engines/tensorrt-rtx/engine.plan")
    with load(folder) as session:
        assert session(["the train"])


def test_assets_are_checked_beside_an_engine_that_was_built_here(
    folder: Path, engine: Path, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    built = root / "rebuilt" / "one" / "onnxruntime"
    shutil.copytree(folder, root / "versions" / "one")
    shutil.copytree(engine, built)
    (root / "current").symlink_to("versions/one")
    with load(root) as session:
        assert session(["the train"])
    flip(root / "versions/one/model/tokenizer.json")
    for given, own in ((root, None), (root / "versions/one", built)):
        with pytest.raises(BundleError, match=r"tokenizer.json' was changed"):
            load(given, engine=own)
