"""What the command line's verbs share: the run they are given, and how their end is shown."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from .. import ConfigError
from ..deploy.misfit import wanted
from . import allowing, checks, release, report, stages
from .config import WEIGHT_ONLY, Config, PassTable, Precision, load
from .console import emit, people, say, watcher
from .copying import copied
from .int8 import showing
from .judging import engine_facts
from .optimizing import Asked
from .options import CONFIG
from .preflight import can_calibrate, suits
from .run import Run
from .said import Said, words
from .workspace import RECORD, Stage, Workspace

#: Where an option of the command line goes in the configuration.
PLACES = {
    "model": ("model", "checkpoint"),
    "revision": ("model", "revision"),
    "task": ("model", "task"),
    "opset": ("model", "opset"),
    "dtype": ("model", "dtype"),
    "weights": ("model", "weights"),
    "max_batch": ("model", "max_batch"),
    "max_sequence": ("model", "max_sequence"),
    "trust_remote_code": ("model", "trust_remote_code"),
    "precision": ("build", "precision"),
    "profile": ("build", "profile"),
    "backends": ("build", "backends"),
    "on_failure": ("optimize", "on_failure"),
    "samples": ("calibration", "samples"),
    "method": ("calibration", "method"),
    "weights_method": ("quantize", "method"),
    "preset": ("calibration", "preset"),
    "keep": ("calibration", "keep"),
    "max_drop": ("calibration", "max_drop"),
    "cache": ("quantize", "cache"),
    "kinds": ("bundle", "kinds"),
    "bundle_python": ("bundle", "python"),
    "sign": ("bundle", "sign"),
    "certificate": ("bundle", "certificate"),
    "chain": ("bundle", "chain"),
    "allow_unexecuted": ("gate", "allow_unexecuted"),
}


def given(
    config: Path,
    workspace: Path,
    force: bool,
    quiet: bool,
    *,
    lone: bool = False,
    verb: str = "",
    **over: Any,
) -> Run:
    """The run that a verb was asked for: the file, and what the command line says over it.

    A `verb` of the path heeds what those before it were told there, and says so.

    Raises:
        ConfigError: the file is wrong, or missing where no checkpoint is named otherwise.
    """
    named = lone or bool(over.get("model"))
    base = Config() if named and config == CONFIG and not config.exists() else load(config)
    told = {name: _here(name, value) for name, value in over.items() if value is not None}
    weights_alone = told.get("precision", base.build.precision) in WEIGHT_ONLY
    if verb == "build" and "method" in told and weights_alone:
        told["weights_method"] = told.pop("method")  # how they are rounded, not which ranges
    allowing.check(told.get("allow_unexecuted", ()))
    _say_where(config, workspace, quiet)
    said = Said(verb, words(base, PLACES), told)
    heeded = said.heeding(workspace)
    _say(heeded, told, quiet)
    asked = {**heeded, **told}
    minutes = asked.pop("recover_minutes", None)
    base = base if minutes is None else recovering(base, minutes)
    for name, value in asked.items():
        section, key = PLACES[name]
        table = getattr(base, section)
        kept = _beside(name, table, value)
        changed = _validated(type(table), {**dict(table), key: kept})
        base = base.model_copy(update={section: changed})
    tell = partial(say, quiet=quiet)
    return Run(base, Workspace(workspace), force, watcher(quiet), tell, said=said)


def _say(heeded: Mapping[str, Any], told: Mapping[str, Any], quiet: bool) -> None:
    """What is heeded of what earlier verbs were told."""
    words = [f"{name.replace('_', '-')} {value}" for name, value in heeded.items()
             if name not in told]  # fmt: skip
    if words:
        say(f"as asked before: {', '.join(words)}", quiet=quiet)


def _say_where(config: Path, workspace: Path, quiet: bool) -> None:
    """Which workspace is used, where the file's own folder has another that may be meant."""
    beside = config.parent / workspace
    if _filled(beside) and not _filled(workspace):
        here = f"the workspace is {workspace.absolute()}, without stages so far"
        other = f"-w {beside} names the one beside {config.name}"
        say(f"{here}; {other}", quiet=quiet)


def _filled(workspace: Path) -> bool:
    return any(workspace.glob(f"*/{RECORD}"))


def recovering(config: Config, minutes: float) -> Config:
    """A configuration whose passes end with so many minutes of recovery, in the place of others."""
    before = [table for table in config.passes if table.use != "recover"]
    old = next((table for table in config.passes if table.use == "recover"), None)
    options = {**(old.model_extra or {} if old else {}), "minutes": minutes}
    added = PassTable(use="recover", **options)
    return config.model_copy(update={"passes": (*before, added)})


def _beside(name: str, table: Any, value: Any) -> Any:
    """What is said beside the file's own: gates that may stay unexecuted, sizes of dimensions."""
    if name == "allow_unexecuted":
        return (*table.allow_unexecuted, *value)
    return {**table.profile, **value} if name == "profile" else value


def _validated(kind: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{key}: {wanted(error)}", mend="see --help") from error


def _here(name: str, value: Any) -> Any:
    """A path of the command line starts where the command is run, not at the file's folder."""
    if name == "chain":
        return tuple(str(Path(each).absolute()) for each in value)
    if name not in ("samples", "model", "sign", "certificate") or str(value).startswith("package:"):
        return value
    path = Path(str(value)).expanduser()
    return str(path.absolute()) if name != "model" or path.exists() else value


def one_precision(named: str | None, flags: Mapping[str, bool]) -> str | None:
    """The one precision that was asked for.

    Raises:
        ConfigError: more than one, or none that exists.
    """
    asked = [name for name, on in flags.items() if on] + ([named] if named else [])
    if len(set(asked)) > 1:
        raise ConfigError(f"{' and '.join(asked)} cannot both be built", mend="ask for one")
    known = get_args(Precision)
    if asked and asked[0] not in known:
        raise ConfigError(f"no precision {asked[0]!r}", mend=f"one of {', '.join(known)}")
    return asked[0] if asked else None


def stage(name: str, run: Run, as_json: bool, quiet: bool) -> int:
    """One stage, all it needs, and its parity; 1 when the parity does not hold."""
    if name == "calibrate":  # what is wrong is said before the export
        can_calibrate(run)
    with run.workspace.locked():
        if name == "calibrate":
            stages.export(run)
            suits(run, calibrating=True)
        made: Stage = getattr(stages, name)(run)
        run.said.keep(run.workspace.root)
        parity = {"export": checks.export_parity, "optimize": checks.optimize_parity}.get(name)
        held = parity(run) if parity else []
    if as_json:
        emit({**asdict(made), "parity": _results(held)})
    elif not quiet:
        _print_stage(run, made)
    bad = [each.results["reason"] for each in held if not each.results["ok"]]
    for reason in bad:
        say(f"parity does not hold: {reason}")
    return 1 if bad else 0


def _results(held: list[Stage]) -> Any:
    """The parity of one graph, of each where there are several, None of nothing."""
    found = {each.results["name"]: each.results for each in held}
    return found if len(found) > 1 else next(iter(found.values()), None)


def explained(path: Path | None, run: Run, asked: Asked, as_json: bool, quiet: bool) -> int:
    """The passes on any file, or on the workspace's export, of which nothing is made anew.

    1 when an application was not kept.
    """
    from . import optimizing

    optimizing.refuse_taken(asked.output)
    with nullcontext() if path is not None else run.workspace.locked():
        if path is None:
            stages.export(run)
        found = optimizing.optimize(path or run.folder("export"), run.config, asked)
    if as_json:
        emit(found)
    elif not quiet:
        people(file=sys.stdout).print(optimizing.show(found))
    failures = [failure for each in found["passes"] for failure in each["failures"]]
    return 1 if failures else 0


def _print_stage(run: Run, made: Stage) -> None:
    folder = run.folder(made.name)
    say(f"{folder}{' (fresh)' if made.fresh else ''}", file=sys.stdout)
    for line in showing.lines(made.results) if made.name == "calibrate" else ():
        say(line, file=sys.stdout)
    for note in made.results.get("notes", ()):
        say(f"note: {note}")


def end(
    verb: str,
    run: Run,
    as_json: bool,
    quiet: bool,
    output: Path | None = None,
    summary: Path | None = None,
    tracking: str | None = None,
) -> int:
    """A verb that ends in a report: show it, add it where it is wanted, and give its exit code."""
    with run.workspace.locked():
        outcome: release.Outcome = (
            release.bundle(run, run.config.bundle.kinds)
            if verb == "bundle"
            else getattr(release, verb)(run)
        )
        run.said.keep(run.workspace.root)
        paths = [Path(made.path) for made in outcome.report.bundles]
        if output is not None:
            paths = [copied(path, output) for path in paths]
        if summary is not None:
            with summary.open("a", encoding="utf-8") as file:
                file.write((run.workspace.root / "report.md").read_text(encoding="utf-8"))
        if tracking is not None:
            from .tracking import track

            track(tracking, run, outcome)
    if as_json:
        emit(outcome.report.model_dump(mode="json"))
    people(quiet).print(report.table(outcome.report))
    for line in left_out(run):
        say(line, quiet=quiet)
    for gate in outcome.failures:
        mend = f", {gate.mend}" if gate.mend else ""
        say(f"gate {gate.name} {gate.status}: {gate.reason}{mend}")
    if not as_json and not quiet:
        for path in (*outcome.files, *paths):
            say(str(path), file=sys.stdout)
    return outcome.exit_code


def left_out(run: Run) -> Iterator[str]:
    """What of each engine's lowering failed, so that it is slower than it might be."""
    for stage in run.stages.values():
        for facts in engine_facts(run, stage) if stage.name.startswith("engine/") else ():
            yield from (f"note: {stage.name}: {each}" for each in facts.get("left_out", ()))


def verify_bundle(path: Path, as_json: bool, quiet: bool) -> int:
    """Hold a bundle against its own manifest and golden runs."""
    from ..deploy.selfcheck import verify_bundle as check

    if not path.exists():
        raise ConfigError("no bundle there", where=path, mend="give a bundle's archive or folder")
    found = check(path)
    if as_json:
        emit(asdict(found))
    elif not quiet:
        marks = {True: "ok", False: "FAILED", None: "not executed"}
        for each in found.checks:
            say(f"{marks[each.ok]:<12} {each.name}: {each.detail}")
    return 0 if found.ok else 1
