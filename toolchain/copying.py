"""What ships, copied out of the workspace: whole or not there, and nothing of what was there."""

import shutil
from pathlib import Path


def copied(source: Path, folder: Path) -> Path:
    """A bundle's archive, or a folder as a Triton repository is one, in `folder`.

    Raises:
        OSError: it cannot be written; what was there before is kept.
    """
    target = folder / source.name
    part, old = (folder / f".{source.name}.{end}" for end in ("part", "old"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _drop(part)  # of a run that was killed
        if source.is_dir():
            shutil.copytree(source, part)
        else:
            shutil.copy2(source, part)
        _swap(part, target, old)
    finally:
        _drop(part)
    return target


def _swap(part: Path, target: Path, old: Path) -> None:
    """Put a whole copy in the place of what is there; a file in one step, a folder in two."""
    if target.exists() and (part.is_dir() or target.is_dir()):
        _drop(old)
        target.rename(old)
    part.rename(target)
    _drop(old)


def _drop(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
