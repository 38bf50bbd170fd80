"""One run of the command line: its configuration, its workspace, and whom it tells what it does."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import ConfigError
from ..deploy.signature import Signature
from .changed import reason
from .config import Config
from .said import Said
from .versions import versions
from .workspace import Stage, Work, Workspace

Watch = Callable[[str], AbstractContextManager[object]]


def _silent(_: str) -> AbstractContextManager[object]:
    return nullcontext()


def _untold(_: str) -> None:
    pass


@dataclass(frozen=True)
class Run:
    """What every stage is given; `stages` collects the records in the order they were asked for.

    `said` is what the command line says over the file, which `config` has taken up.
    """

    config: Config
    workspace: Workspace
    force: bool = False
    watch: Watch = _silent
    tell: Callable[[str], None] = _untold
    stages: dict[str, Stage] = field(default_factory=dict)
    said: Said = field(default_factory=Said)

    @property
    def checkpoint(self) -> str:
        """A folder or a hub id; what was exported before when the configuration names none.

        Raises:
            ConfigError: none is named and none was exported.
        """
        text = self.config.model.checkpoint
        if text:
            path = self.config.path(text)
            if text.startswith("package:"):
                return str(path)
            # one folder has one spelling: another is no reason to export again
            return str(path.resolve()) if path.exists() else text
        before = self.workspace.stage("export")
        if before is None:
            raise ConfigError(
                "no checkpoint is named",
                where="[model] checkpoint",
                mend="name one there, or run `llmdeploy export MODEL`",
            )
        return str(before.options["checkpoint"])

    def folder(self, stage: str, graph: str = "") -> Path:
        """The folder of a stage, or that of one of its graphs, where the task has several."""
        return self.workspace.path(stage) / graph

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs of the export, in the order they run: one without a name, as a rule."""
        return Signature.load(self.folder("export")).components or ("",)

    def stage(
        self,
        name: str,
        work: Work,
        *,
        inputs: Mapping[str, str],
        options: Mapping[str, Any],
        packages: tuple[str, ...],
        force: bool = False,
    ) -> Stage:
        """Do a stage through the workspace, once a run, and tell; also why one is done again."""
        if name in self.stages:
            return self.stages[name]
        before = self.workspace.stage(name)
        with self.watch(name):
            record = self.workspace.run(
                name,
                work,
                inputs=inputs,
                options=options,
                versions=versions(packages),
                force=force or self.force,
            )
        if before is not None and not record.fresh:
            self.tell(f"again: {'--force' if self.force else reason(before, record)}")
        self.stages[name] = record
        return record

    def parities(self, name: str) -> list[Stage]:
        """The parity of a stage that was measured in this run, a record a graph."""
        whole = f"parity/{name}"
        return [
            stage
            for each, stage in self.stages.items()
            if each == whole or each.startswith(f"{whole}/")
        ]
