"""Bundles that are copied out: whole, and alone at their place."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain.copying import copied


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("there", ["nothing", "a file", "a folder"])
@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_what_was_there_leaves_nothing(tmp_path: Path, there: str, kind: str) -> None:
    source, out = tmp_path / "made" / "b-1", tmp_path / "out"
    (source if kind == "a folder" else source.parent).mkdir(parents=True)
    (source / "2" if kind == "a folder" else source).write_text("new")
    out.mkdir()
    if there == "a folder":
        (out / "b-1").mkdir()
        (out / "b-1" / "1").write_text("old")
    elif there == "a file":
        (out / "b-1").write_text("old")
    assert copied(source, out) == out / "b-1"
    assert tree(out) == (["b-1", "b-1/2"] if kind == "a folder" else ["b-1"])
    assert (out / "b-1/2" if kind == "a folder" else out / "b-1").read_text() == "new"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any, target: Any) -> None:
        Path(target).write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    (tmp_path / "b.tar.zst").write_text("half")
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.tar.zst").write_text("old")
    with pytest.raises(OSError, match="No space"):
        copied(tmp_path / "b.tar.zst", out)
    assert tree(out) == ["b.tar.zst"]
    assert (out / "b.tar.zst").read_text() == "old"
