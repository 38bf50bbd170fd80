"""Stages of one workspace in another: what several cells need is made once."""

import json
import os
import shutil
from pathlib import Path

from ..workspace import RECORD, Stage, Workspace, digest_of, write_json

#: In a workspace: of each stage of its seed which one was seen last.
SEEN = ".seeds.json"


def adopt(ours: Workspace, theirs: Workspace) -> tuple[str, ...]:
    """Take over the whole stages of `theirs` that `ours` lacks or that were made anew; their names.

    What does not fit the configuration here is made again by its key, and is then kept until the
    seed's is another.
    """
    taken: list[str] = []
    seen = _seen(ours)
    for record in sorted(theirs.root.rglob(RECORD)):
        name = record.parent.relative_to(theirs.root).as_posix()
        found, here = theirs.stage(name), ours.stage(name)
        if found is None or name.startswith("."):
            continue
        last, seen[name] = seen.get(name), _mark(found)
        if here and seen[name] in (last, _mark(here)):
            continue
        _take(theirs.path(name), ours.path(name), ours.root / f".{name.replace('/', '+')}.seed")
        taken.append(name)
    ours.root.mkdir(parents=True, exist_ok=True)
    write_json(ours.root / SEEN, seen)
    return tuple(taken)


def _seen(ours: Workspace) -> dict[str, str]:
    try:
        return dict(json.loads((ours.root / SEEN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _mark(stage: Stage) -> str:
    """What tells one making of a stage from another."""
    return digest_of([stage.key, stage.files])


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
