"""`llmdeploy tune`: advice by rules, a search over measurements, and proof of what was taken."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import Error
from ..release import Outcome, verify
from ..report.tuning import Tuning
from ..run import Run
from ..sampled import sample_options
from ..stages import float_engine
from ..workspace import Workspace, digest_of, write_text
from . import advice as rules
from .advising import Advised, Request, plain_run
from .clock import Clock
from .front import chosen, front, nearest, shortfalls
from .hands import Hands
from .limits import Limits
from .page import page
from .result import Asked, Result
from .shelf import Shelf
from .space import configured, tunable, words
from .split import Split, split
from .study import Search, Tell, opened
from .told import Setting, record
from .written import gated, write

FILE, PAGE = "tune.json", "tune.html"
#: The stages of a trial that a release takes as they are.
RELEASED = ("export", "optimize", "compress", "calibrate", "quantize", "float/", "engine/")
#: Stages of a point that no other keeps, and that are large.
LARGE = ("calibrate", "quantize", "engine/")


@dataclass(frozen=True)
class Tuned:
    """The record of a search, and the outcome of its proof where a point was taken."""

    record: Tuning
    outcome: Outcome | None
    files: tuple[Path, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 where no point holds the limits, or the taken one does not on held-out data."""
        return 1 if self.outcome is None else self.outcome.exit_code


def tune(run: Run, request: Request, advised: Advised, tell: Tell) -> Tuned:
    """Search, take a point, and verify it on data that no trial saw.

    Raises:
        Error: nothing to score on, a missing package, a full disk.
    """
    started, root = time.perf_counter(), run.workspace.root.absolute()
    folder = root / "tune"
    plain = plain_run(run, request.target)
    dense = float_engine(plain)
    data = split(plain, folder / "data")
    shelf = Shelf(folder / "stages", Clock(), Workspace(root))
    shelf.sweep()
    read = {"model": dense.digest, "samples": sample_options(plain)}
    search = _study(run, request, advised, data, folder, read)
    hands = Hands(request.place)
    asked = _asked(run, request, data, root)
    try:
        search.run(
            hands,
            lambda settings: hands.take(asked.model_copy(update={"settings": dict(settings)})),
            request.budget,
            _tidy(search, shelf, tell),
        )
    finally:
        hands.close()
    taken = chosen(search.results, request.limits, request.prefer)
    made = record(
        _setting(run, request, advised, data),
        search.results,
        search.lost,
        taken,
        _why(search, request.limits),
        time.perf_counter() - started,
    )
    if taken is None:
        return Tuned(made, None, _write(made, root))
    return _proved(run, request, shelf, taken, made)


def _study(
    run: Run, request: Request, advised: Advised, data: Split, folder: Path, read: Mapping[str, Any]
) -> Search:
    """The search of these trials; `read` is what they read beside the configuration."""
    space = advised.space
    name = digest_of(
        {
            "config": run.config.model_dump(mode="json", exclude={"gate", "bundle"}),
            "target": request.target,
            "limits": request.limits.model_dump(),
            "space": space.model_dump(mode="json"),
            "data": data.digest,
            "read": read,
            "min-cosine": run.config.gate.min_cosine,  # trials stop at it
        }
    )
    seeds = rules.first(advised.facts, space)
    if run.force:
        (folder / "journal.log").unlink(missing_ok=True)
    return opened(folder, name[:16], space, request.limits, seeds, request.seed)


def _asked(run: Run, request: Request, data: Split, root: Path) -> Asked:
    return Asked(
        config=run.config.model_dump(mode="json"),
        folder=str(run.config.folder),
        here=str(Path.cwd()),
        workspace=str(root),
        target=request.target,
        limits=request.limits,
        split=data,
        replaced=tunable(),
        settings={},
    )


def _tidy(search: Search, shelf: Shelf, tell: Tell) -> Tell:
    """Tell of a trial, and forget the large stages of points that another beats in all."""

    def told(number: int, result: Result | None, why: str) -> None:
        tell(number, result, why)
        if search.busy:
            return
        best = front(search.results)
        held = {pair for each in best for pair in each.keys.items()}
        for each in search.results:
            for name, key in set(each.keys.items()) - held:
                if name.startswith(LARGE):
                    shelf.drop(name, key)

    return told


def _setting(run: Run, request: Request, advised: Advised, data: Split) -> Setting:
    table = run.config.evaluation
    verified = f"The taken point was then scored on {table.samples}, which no trial saw."
    if not table.metric:
        verified = "There is no [evaluation]: nothing held out has judged the taken point."
    place = request.place
    return Setting(
        target=request.target,
        limits=request.limits,
        prefer=request.prefer,
        jobs=str(place.processes) if place.address is None else f"ray {place.address}".strip(),
        seed=request.seed,
        hardware=advised.facts.hardware,
        calls=advised.facts.calls,
        advice=advised.advice,
        tuned_on=data.words,
        verified_on=verified,
    )


def _why(search: Search, limits: Limits) -> str:
    near = nearest(search.results)
    if near is None:
        return "no trial could be measured"
    return f"nearest is {words(near.settings)}: {shortfalls(near, limits)}"


def _proved(run: Run, request: Request, shelf: Shelf, taken: Result, made: Tuning) -> Tuned:
    """Write the configuration, give the workspace the point's stages, and verify it."""
    target, root = request.target, run.workspace.root.absolute()
    config = configured(run.config, taken.settings, target, tunable())
    config = gated(config, request.limits, bool(run.config.evaluation.metric))
    config = write(config, request.output, _head(made, taken))
    keys = {name: key for name, key in taken.keys.items() if name.startswith(RELEASED)}
    shelf.give(keys, run.workspace)
    proof = Run(config, run.workspace, watch=run.watch)
    engine = run.workspace.stage(f"engine/{target}")
    more = {"configuration": str(request.output), "engine": engine.digest if engine else ""}
    made = made.model_copy(update=more)
    files = _write(made, root)
    outcome = verify(proof)
    return Tuned(made, outcome, (*files, request.output, *outcome.files))


def _head(made: Tuning, taken: Result) -> str:
    figures = taken.figures
    told = f"{figures['speedup']:.2f} times float's speed, {figures['size_mb']:.1f} MB"
    limits = ", ".join(f"{key.replace('_', '-')} {value:g}" for key, value in made.limits.items())
    return (
        f"Written by `llmdeploy tune` for {made.target}, limits: {limits}.\n"
        f"{made.chosen}: a drop of {figures['drop']:.4f} by tuning data, {told}.\n"
        f"Tuned on {made.tuned_on}.\n"
    )


def _write(made: Tuning, root: Path) -> tuple[Path, ...]:
    paths = root / FILE, root / PAGE
    try:
        for path, text in zip(
            paths, (made.model_dump_json(indent=2) + "\n", page(made)), strict=True
        ):
            write_text(path, text)
    except OSError as error:
        mend = "free space or mend the permissions"
        raise Error(f"cannot write: {error.strerror}", where=root, mend=mend) from error
    return paths
