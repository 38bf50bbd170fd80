"""Stages of one workspace in another: what several cells need is made once."""

import os
import shutil
from pathlib import Path

from ..workspace import RECORD, Workspace


def adopt(ours: Workspace, theirs: Workspace) -> tuple[str, ...]:
    """Take over the whole stages of `theirs` that are not in `ours` as they are; their names.

    What does not fit the configuration here is made again by its key.
    """
    taken: list[str] = []
    for record in sorted(theirs.root.rglob(RECORD)):
        name = record.parent.relative_to(theirs.root).as_posix()
        found, here = theirs.stage(name), ours.stage(name)
        is_same = here and found and (here.key, here.files) == (found.key, found.files)
        if found is None or name.startswith(".") or is_same:
            continue
        _take(theirs.path(name), ours.path(name), ours.root / f".{name.replace('/', '+')}.seed")
        taken.append(name)
    return tuple(taken)


def _take(source: Path, target: Path, aside: Path) -> None:
    old, part = (aside.with_name(f"{aside.name}.{end}") for end in ("old", "part"))
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, copy_function=_copy)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _copy(source: str, target: str) -> str:
    """A copy that shares its blocks where the file system can: onnx refuses hard links."""
    with open(source, "rb") as read, open(target, "wb") as write:
        try:
            while os.copy_file_range(read.fileno(), write.fileno(), 1 << 30):
                pass
        except OSError:  # another file system, or one that cannot
            shutil.copyfile(source, target)
    shutil.copystat(source, target)
    return target
