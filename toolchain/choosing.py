"""What the configuration chooses: a backend, a pass, sizes to build for, nodes to keep."""

from collections.abc import Collection, Sequence

import onnx_ir as ir
from pydantic import TypeAdapter, ValidationError

from .. import ConfigError, MissingError
from ..deploy.backend import Backend, Profile
from ..deploy.misfit import misfit
from ..deploy.signature import Signature
from . import registry
from .config import PassTable
from .run import Run

#: The usual and the greatest size of a dimension, where nothing else says.
USUAL = {"batch": (1, 8), "sequence": (128, 512)}


def backend_of(name: str, precision: str) -> Backend:
    """The backend called `name`.

    Raises:
        MissingError: it cannot build here.
        ConfigError: nobody offers it, or it does not take the precision.
    """
    backend: Backend = registry.find("backends", name)()
    if why := backend.missing():
        raise MissingError(why, where=f"backend {name}")
    if precision not in backend.precisions:
        raise ConfigError(
            f"{name} does not build {precision}",
            where="[build] precision",
            mend=f"one of {', '.join(sorted(backend.precisions))}",
        )
    return backend


def options_of(run: Run, name: str, backend: Backend) -> dict[str, object]:
    """A backend's configured options; where it keeps a timing cache, one in the workspace.

    Where `sparsify` left the pattern that sparse kernels read, TensorRT is told to look for it.

    The cache saves time and changes no engine, so it is no part of what a stage is fresh by.
    """
    asked = run.config.build.options.get(name, {})
    takes = getattr(backend, "accepts", None)
    refused = getattr(backend, "refuses", {})
    fields: set[str] = set(takes.model_fields) - set(refused) if takes is not None else set()
    given: dict[str, object] = {}
    if "timing_cache" in fields:
        given["timing-cache"] = str((run.workspace.root / "timing").resolve())
    if "sparse_weights" in fields and two_of_four(run):
        given["sparse-weights"] = True
    return {**given, **asked}


#: Fitted passes after which two of four weights are zero no more.
_SPOILS = ("prune", "low-rank")


def two_of_four(run: Run) -> bool:
    """Whether `sparsify` left two of four weights zero in every layer that it took, and last."""
    stage = run.stages.get("compress")
    if stage is None:
        return False
    used = [table["use"] for table in stage.options["passes"]]
    last = next((name for name in reversed(used) if name in ("sparsify", *_SPOILS)), "")
    found = stage.results.get("graphs") or {"": stage.results}
    rows = [row for each in found.values() for row in each.get("sparse", ())]
    return last == "sparsify" and bool(rows) and all(row["two_of_four"] for row in rows)


def profile_of(run: Run, graph: str = "") -> Profile:
    """[min, opt, max] of every named dimension: the configured ones, else from io.json's bounds.

    Raises:
        ConfigError: a dimension is configured that no graph of the export has, or one beyond its
            bounds.
    """
    asked, dims = run.config.build.profile, Signature.load(run.folder("export", graph)).dims
    known = {
        name for each in run.graphs for name in Signature.load(run.folder("export", each)).dims
    }
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ConfigError(
            f"the graph has no dimension {unknown[0]!r}",
            where="[build.profile]",
            mend=f"its dimensions are {', '.join(sorted(known))}",
        )
    made: dict[str, tuple[int, int, int]] = {}
    for name, bounds in dims.items():
        opt, high = USUAL.get(name, (128, 512))
        limit = bounds.max or high
        made[name] = asked.get(name) or (bounds.min, min(opt, limit), min(high, limit))
        if made[name][0] < bounds.min or made[name][2] > (bounds.max or made[name][2]):
            most = "any number" if bounds.max is None else bounds.max
            raise ConfigError(
                f"{name} = {list(made[name])}, and the exported graph takes {bounds.min} to {most}",
                where="[build.profile]",
                mend="keep within it, or export with another [model] max-batch or max-sequence",
            )
    return Profile(made)


def divided(
    tables: Sequence[PassTable],
) -> tuple[tuple[PassTable, ...], tuple[PassTable, ...]]:
    """The passes of the stage `optimize`, and from the first that needs samples on `compress`'s.

    Raises:
        ConfigError: a pass of the latter is not offered, or its fields do not fit.
    """
    fitted = [getattr(registry.find("passes", table.use), "fitted", False) for table in tables]
    first = fitted.index(True) if True in fitted else len(tables)
    for table in tables[first:]:
        make_pass(table)  # refused now, and not when all before it is made
    return tuple(tables[:first]), tuple(tables[first:])


def make_pass(table: PassTable) -> ir.passes.PassBase:
    """The pass a `[[passes]]` table names, with its fields.

    Raises:
        ConfigError: nobody offers it, or a field is unknown or of the wrong kind.
    """
    cls = registry.find("passes", table.use)
    try:
        return TypeAdapter(cls).validate_python(table.options)
    except ValidationError as error:
        raise ConfigError(
            f"pass {table.use}: {misfit(error, 'its options', dashes=True)}",
            where="[[passes]]",
            mend="`llmdeploy list` shows each pass's options",
        ) from error


def kept(run: Run) -> tuple[str, ...]:
    """The nodes of `[calibration] keep`.

    Raises:
        ConfigError: the export has several graphs, and one of the nodes is of none.
    """
    keep, graphs = tuple(run.config.calibration.keep), run.graphs
    lost = [name for name in keep if graphs != ("",) and name.partition(":")[0] not in graphs]
    if lost:
        raise ConfigError(
            f"{lost[0]!r} names no graph",
            where="[calibration] keep",
            mend=f"write GRAPH:NODE, GRAPH one of {', '.join(graphs)}",
        )
    return keep


def paired(run: Run) -> bool:
    """Whether INT8 weights have to suit a kernel that adds two products in 16 bits."""
    asked, backends = run.config.calibration.pairs, run.config.build.backends
    if asked != "auto":
        return asked
    return any(getattr(registry.find("backends", each), "pairs", False) for each in backends)


def can_keep(keep: Sequence[str], names: Collection[str], kind: str) -> None:
    """Refuse names of nothing in `names`: what was to stay float would be rounded unsaid.

    Raises:
        ConfigError: a name in `keep` is of no such `kind`.
    """
    unknown = next((name for name in keep if name not in names), None)
    if unknown is not None:
        raise ConfigError(
            f"no {kind} called {unknown!r}",
            where="[calibration] keep",
            mend="`llmdeploy inspect` shows their names",
        )
