"""Where a parity that does not hold begins: the first tensor that parts, its node, its pass.

Graphs are bisected tensor by tensor (`deploy.bisect`); an export is held against the checkpoint's
own modules, run by torch; and passes are run again in order, until the outputs are off.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .. import Error
from ..deploy.backend import Feed
from ..deploy.bisect import AT_ONCE, chunks, diverge, name_of, relative_error, values
from ..deploy.parity import Tolerance, compare
from .choosing import make_pass
from .referenced import weights_of
from .replay import Outputs, replay
from .run import Run
from .workspace import Stage

MODEL = "model.onnx"
#: Where a tensor parts: of the same float32 sums, and of INT8's roundings.
LIMITS = {False: 1e-4, True: 0.1}
_SCOPES = "pkg.torch.onnx.name_scopes"
Found = dict[str, Any]


def locate(
    run: Run, stage: Stage, against: str, graph: str, feed: Feed, tolerance: Tolerance
) -> Found:
    """What is known of where `stage` parts from `against`; why nothing is, where it is not.

    Gives `tensor`, `node`, `error` relative to the tensor's scale, `pass` and `reason`.
    """
    try:
        if against == "checkpoint":
            return _from_torch(run, stage, graph, feed)
        return _from_graph(run, stage, against, graph, feed, tolerance)
    except Error as error:
        return {"reason": f"not located: {error.what}"}


def _from_graph(
    run: Run, stage: Stage, against: str, graph: str, feed: Feed, tolerance: Tolerance
) -> Found:
    before, after = (run.folder(name, graph) / MODEL for name in (against, stage.name))
    if not after.is_file():
        return {"reason": "the engine's inner tensors cannot be read"}
    lossy = tolerance.max_relative_error is None
    parted = diverge(before, after, feed, LIMITS[lossy])
    if parted is None:
        return {"reason": f"no inner tensor differs by more than {LIMITS[lossy]} for good"}
    said = f"{parted.differing} of {parted.compared} shared tensors differ"
    blamed, why = _pass(run, stage, before, feed, tolerance)
    return {
        "tensor": parted.tensor,
        "node": parted.node,
        "error": parted.error,
        "pass": blamed,
        "reason": f"{said}; {why}" if why else said,
    }


def _pass(
    run: Run, stage: Stage, before: Path, feed: Feed, tolerance: Tolerance
) -> tuple[str | None, str]:
    """The pass after which the outputs are off, when the stage's passes are run again."""
    passes = _passes(run, stage)
    if passes is None:
        return None, "the layers of the report say what INT8 costs each"
    from ..passes import PassManager, load

    wanted, blamed = replay(before, [feed]), list[str]()

    def watch(step: Any, model: ir.Model, _: object) -> None:
        if not blamed and _off(wanted, model, feed, tolerance):
            blamed.append(step.name)

    on_failure = run.config.optimize.on_failure
    manager = PassManager(passes, prove=False, on_failure=on_failure, watch=watch)
    manager.run(load(before, weights_of(before.parent)))
    if blamed:
        return blamed[0], ""
    late = "ONNX Runtime's own rewrites" if stage.name.startswith(("engine", "float")) else "a hand"
    return None, f"no pass does it: {late} changed the graph after them"


def _passes(run: Run, stage: Stage) -> Sequence[ir.passes.PassBase] | None:
    if stage.name == "optimize":
        return [make_pass(table) for table in run.config.passes]
    if "backend" not in stage.results:
        return None
    from . import registry

    backend = registry.find("backends", stage.results["backend"])()
    return backend.lowering(stage.results["precision"])


def _off(wanted: Sequence[Outputs], model: ir.Model, feed: Feed, tolerance: Tolerance) -> bool:
    from .replay import Probe

    found = {name.removesuffix("#0"): array for name, array in Probe([feed])(model).items()}
    return not compare("", "", wanted, [found], tolerance).ok


def _from_torch(run: Run, stage: Stage, graph: str, feed: Feed) -> Found:
    """The first module of the checkpoint whose output the export's nodes do not give."""
    from .checkpoint import locate as find
    from .exporter.within import within

    model = run.config.model
    modules = within(
        find(run.checkpoint, model.revision),
        feed,
        task=str(stage.results["task"]),
        component=graph,
        trust_remote_code=model.trust_remote_code,
    )
    folder = run.folder(stage.name, graph)
    exported = ir.load(folder / MODEL)
    made = {name: node for node in exported.graph for name in _given(node, modules)}
    weights = weights_of(folder) or folder
    return _parting(exported, weights, feed, made, modules)


def _parting(
    model: ir.Model,
    weights: Path,
    feed: Feed,
    made: Mapping[str, ir.Node],
    modules: Mapping[str, Any],
) -> Found:
    names = {module: node.outputs[0].name or "" for module, node in made.items()}
    arrays: Outputs = {}
    for part in chunks(list(dict.fromkeys(names.values())), AT_ONCE):
        arrays |= values(model, weights, part, feed)
    same = {module: arrays[name] for module, name in names.items()}
    known = [each for each in made if same[each].shape == modules[each].shape]
    order = {id(node): place for place, node in enumerate(model.graph)}
    for module in sorted(known, key=lambda each: order[id(made[each])]):
        error = relative_error(modules[module], same[module])
        if error > LIMITS[False]:
            return {
                "tensor": names[module],
                "node": name_of(made[module]),
                "error": error,
                "pass": None,
                "reason": f"torch's module {module} gives another; {len(known)} were compared",
            }
    return {"reason": f"none of the {len(known)} modules compared gives another output in torch"}


def _given(node: ir.Node, modules: Mapping[str, Any]) -> Iterator[str]:
    """The modules whose output a node may make: the last of their nodes stays in the table."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return
    yield from (scope for scope in scopes if scope in modules)


def words(found: Mapping[str, Any]) -> str:
    """One line of it, for a gate's reason."""
    if not found.get("tensor"):
        return str(found.get("reason", ""))
    by = f", by pass {found['pass']}" if found.get("pass") else ""
    return f"first to part: {found['tensor']} at {found['node']}{by} ({found['reason']})"
