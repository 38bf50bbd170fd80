"""`llmdeploy optimize` beside the workspace: explained, stopped early, dumped, or on any file."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
from rich.console import Group, RenderableType
from rich.table import Table

from .. import ConfigError
from ..passes import PassManager, Step, load, save
from ..passes.ledger import Ledger
from .choosing import divided, make_pass
from .config import Config
from .referenced import weights_of

ALL = "all"


@dataclass(frozen=True)
class Asked:
    """How the passes are looked at: a rule's name or `all`, the last pass, a folder of graphs."""

    explain: str | None = None
    stop_after: str | None = None
    dump: Path | None = None
    output: Path | None = None
    on_failure: Literal["stop", "roll-back"] = "stop"


@dataclass
class Account:
    """What was seen of every pass: its step, its applications, and why rules did not apply."""

    rule: str | None
    passes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def note(self, step: Step, ledger: Ledger) -> None:
        """Take down one pass; of one rule only, when that was asked for."""
        wanted = None if self.rule in (None, ALL) else self.rule
        made = [asdict(each) for each in ledger.applications if wanted in (None, each.rule)]
        missed = [
            {"rule": rule, "site": site, "reason": reason}
            for (rule, site), reason in ledger.reasons.items()
            if rule == wanted
        ]
        self.passes.append({**asdict(step), "made": made, "missed": missed})


def optimize(path: Path, config: Config, asked: Asked) -> dict[str, Any]:
    """Run the configured passes on an ONNX file, each application proved on its own region.

    Writes the graph after each pass into `asked.dump`, and the last into `asked.output`.

    Raises:
        ConfigError: no such file, pass or rule, or a folder that holds another model.
        PassError: the file is no sound model, or a pass broke it.
    """
    tables, _ = divided(config.passes)
    names = [table.use for table in tables]
    if asked.stop_after is not None and asked.stop_after not in names:
        raise ConfigError(
            f"no pass {asked.stop_after!r} is configured", mend=f"one of {', '.join(names)}"
        )
    _known(asked.explain, [make_pass(table) for table in tables])
    if asked.stop_after is not None:
        tables = tables[: names.index(asked.stop_after) + 1]
    account = Account(asked.explain)

    def watch(step: Step, model: ir.Model, ledger: Ledger) -> None:
        account.note(step, ledger)
        if asked.dump is not None:
            save(model, asked.dump / f"{len(account.passes):02}-{step.name}")

    explain = asked.explain not in (None, ALL)
    manager = PassManager(
        [make_pass(table) for table in tables],
        on_failure=asked.on_failure,
        watch=watch,
        explain=explain,
    )
    model, _ = manager.run(load(path, weights_of(path if path.is_dir() else path.parent)))
    if asked.output is not None:
        _write(model, asked.output)
    return {"path": str(path), "rule": asked.explain, "passes": account.passes}


def _known(rule: str | None, passes: Sequence[Any]) -> None:
    if rule in (None, ALL):
        return
    rules = sorted({each.name for item in passes for each in getattr(item, "table", list)()})
    if rule not in rules:
        raise ConfigError(f"no rule {rule!r}", where="--explain", mend=f"one of {', '.join(rules)}")


def refuse_taken(folder: Path | None) -> None:
    """Refuse an output that cannot be a new folder: a model is a graph and its weights.

    Raises:
        ConfigError: it is there already, or named as a file.
    """
    if folder is None:
        return
    if folder.suffix == ".onnx":
        what = f"a result is a folder of model.onnx and its weights, {folder.name} is a file's name"
        raise ConfigError(what, where="--output", mend=f"-o {folder.with_suffix('')}")
    if folder.exists():
        raise ConfigError("there is something already", where=folder, mend="name a new folder")


def _write(model: ir.Model, folder: Path) -> None:
    """Save aside and rename in, so that nothing half-written is at the final name."""
    refuse_taken(folder)
    aside = folder.with_name(f".{folder.name}.part")
    try:
        save(model, aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def show(found: dict[str, Any]) -> RenderableType:
    """The passes for people; under a rule's name, each site and what became of it."""
    table = Table(box=None, header_style="bold")
    for name in ("pass", "applications", "proved", "error", "nodes", "bytes", "seconds"):
        table.add_column(name, justify="left" if name == "pass" else "right")
    for each in found["passes"]:
        error = max(
            (x for x in (each["max_error"], each["local_error"]) if x is not None), default=None
        )
        table.add_row(
            each["name"],
            str(sum(each["applications"].values())),
            str(each["proved"]),
            "—" if error is None else f"{error:.2g}",
            f"{each['nodes_before']} → {each['nodes_after']}",
            f"{each['bytes_before']:,} → {each['bytes_after']:,}",
            f"{each['seconds']:.2f}",
        )
    parts: list[RenderableType] = [table, *(_counts(each) for each in found["passes"])]
    if found["rule"] not in (None, ALL):
        parts = [table, *(_sites(each) for each in found["passes"])]
    return Group(*parts)


def _counts(each: dict[str, Any]) -> str:
    counts = ", ".join(f"{rule} {count}" for rule, count in each["applications"].items())
    return f"{each['name']}: {counts or 'nothing to do'}"


def _sites(each: dict[str, Any]) -> RenderableType:
    table = Table(box=None, show_header=False)
    for made in each["made"]:
        error = made["reason"] if made["error"] is None else f"error {made['error']:.2g}"
        ops = f"{' '.join(made['before'])} → {' '.join(made['after'])}"
        table.add_row(each["name"], made["node"], "applied", ops, error)
    for missed in each["missed"]:
        table.add_row(each["name"], missed["site"], "not", missed["reason"], "")
    return table
