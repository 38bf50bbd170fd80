"""A workspace in which each stage is kept once a key, so that trials share what they have alike."""

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..workspace import RECORD, Stage, Work, Workspace, key_of, sync
from .clock import Clock

#: Characters of a key that name a folder.
SHORT = 20


class Shelf(Workspace):
    """`<root>/<stage>/<key>`: one trial's view of stages that any number of processes make.

    A stage is made by whoever comes first and waited for by the others. `beside` is a workspace
    whose stages are taken where they are of the same key.
    """

    def __init__(self, root: Path, clock: Clock, beside: Workspace | None = None) -> None:
        super().__init__(root)
        self.keys: dict[str, str] = {}
        self._clock, self._beside = clock, beside

    def path(self, stage: str) -> Path:
        """The folder of a stage at the key that this trial asked for.

        What a stage keeps aside, by a name with a dot before it, is this process's alone.
        """
        if stage.startswith("."):
            return self.root / f"{stage}.{os.getpid()}.part"
        return self.root / stage.replace("/", "+") / self.keys.get(stage, "none")

    @contextmanager
    def locked(self, wait: float = 600.0) -> Generator[None]:
        """Nothing to hold: each stage has a lock of its own."""
        del wait
        yield

    def run(
        self,
        name: str,
        work: Work,
        *,
        inputs: Mapping[str, str],
        options: Mapping[str, Any],
        versions: Mapping[str, str],
        force: bool = False,
    ) -> Stage:
        """The stage at its key, made now if nobody has."""
        key = key_of(inputs, options, versions)
        self.keys[name] = key[:SHORT]
        folder = self.path(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")), self._clock.working():
            if self.stage(name) is None and self._beside is not None:
                _lend(self._beside, name, key, folder)
            asked: dict[str, Any] = {"inputs": inputs, "options": options, "versions": versions}
            return super().run(name, work, **asked, force=force)

    def another(self) -> "Shelf":
        """Another trial's view of the same stages."""
        return Shelf(self.root, self._clock, self._beside)

    def give(self, keys: Mapping[str, str], workspace: Workspace) -> None:
        """Put a trial's stages into a workspace, as it is fresh by."""
        for name, key in keys.items():
            source = self.root / name.replace("/", "+") / key
            if (source / RECORD).is_file():
                _copy(source, workspace.path(name), workspace.root)

    def drop(self, name: str, key: str) -> None:
        """Forget one stage; it would be made again."""
        shutil.rmtree(self.root / name.replace("/", "+") / key, ignore_errors=True)

    def sweep(self) -> None:
        """Drop what killed trials left half made; nobody may be at work."""
        for part in (*self.root.glob(".*.part"), *self.root.glob(".*.old")):
            shutil.rmtree(part, ignore_errors=True)

    def _aside(self, name: str, kind: str) -> Path:
        key = self.keys.get(name, "none")
        return self.root / f".{name.replace('/', '+')}.{key}.{os.getpid()}.{kind}"


def _lend(workspace: Workspace, name: str, key: str, folder: Path) -> None:
    found = workspace.stage(name)
    if found is not None and found.key == key:
        _copy(workspace.path(name), folder, folder.parent)


def _copy(source: Path, target: Path, aside: Path) -> None:
    """The folder at another name, its times kept; whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = aside / f".{target.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(source, part)  # copies: external data may have no other hard links
        with suppress(FileNotFoundError):
            old = part.with_suffix(".old")
            target.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        part.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
