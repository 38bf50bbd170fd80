"""Stages of one workspace in another: what several cells need is made once and lies there once."""

import os
import shutil
from pathlib import Path

from ..workspace import RECORD, Workspace


def adopt(ours: Workspace, theirs: Workspace) -> tuple[str, ...]:
    """Take over the whole stages of `theirs` that are not in `ours` as they are; their names.

    By hard links where the disk allows: a stage is replaced and never written to, so that both
    keep what they have. What does not fit the configuration here is made again by its key.
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
    shutil.copytree(source, part, copy_function=_link)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that has no links
        shutil.copy2(source, target)
    return target
