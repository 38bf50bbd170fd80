"""A traced graph made whole: pruned, its untrained outputs dropped, described, written, checked."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ... import ConfigError, ExportError, __version__
from ...deploy.sequences import SplitSequences
from ...deploy.signature import Signature, Tensor
from ...passes.infer import forget
from .. import referenced
from .components import Component
from .task import Target

MODEL = "model.onnx"
#: Folders of the graphs of a task that has several.
COMPONENTS = ("encoder", "decoder")


def prune(program: ir.Model) -> None:
    """Remove nodes and initializers that no output needs."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(program)


def split_plainly(program: ir.Model) -> None:
    """Write `Split` where torch's translation writes a sequence and takes it apart again."""
    SplitSequences()(program)


def drop_untrained(program: ir.Model, missing: Callable[[ir.Graph], list[str]]) -> list[str]:
    """Drop outputs that need weights absent from the checkpoint, but never the first; notes.

    A base model's pooler is such an output where the checkpoint was trained without one.
    """
    graph = program.graph
    absent = set(missing(graph))
    kept = [value for value in graph.outputs if not _needs(value, absent)]
    if not absent or not kept or kept[0] is not graph.outputs[0]:
        return []  # placing the weights will say which one is missing
    dropped = [value.name for value in graph.outputs if value not in kept]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    prune(program)
    return [f"{name} dropped: its weights are not in the checkpoint" for name in dropped]


def drop_unused_inputs(program: ir.Model) -> None:
    """Remove inputs that nothing reads: an engine would ask for them all the same."""
    inputs = program.graph.inputs
    kept = [value for value in inputs if value.uses() or value.is_graph_output()]
    inputs.clear()
    inputs.extend(kept)


def _needs(output: ir.Value, names: set[str]) -> bool:
    seen: set[int] = set()
    left = [output]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.name in names:
            return True
        node = value.producer()
        left += [one for one in (node.inputs if node else ()) if one is not None]
    return False


def signature(graph: ir.Graph, target: Target, component: Component, config: Any) -> Signature:
    """What io.json says of the graph."""
    labelled = "classification" in target.task and not target.task.startswith("zero-shot")
    used = {dim for value in graph.inputs for dim in _shape(value) if isinstance(dim, str)}
    return Signature(
        task=target.task,
        architecture=target.model_class.__name__,
        inputs=tuple(_tensor(value, component.pads) for value in graph.inputs),
        outputs=tuple(_tensor(value, {}) for value in graph.outputs),
        dims={name: bounds for name, bounds in component.bounds.items() if name in used},
        labels=_labels(config) if labelled else (),
        padding_side=component.padding_side,
        truncation_side=component.truncation_side,
    )


def _labels(config: Any) -> tuple[str, ...]:
    """Names of the classes by their ids, whose order a file need not keep; none where ids lack."""
    names: Mapping[int, str] = getattr(config, "id2label", None) or {}
    ids = range(len(names))
    return tuple(names[index] for index in ids) if set(names) == set(ids) else ()


def _tensor(value: ir.Value, pads: Mapping[str, int]) -> Tensor:
    name = value.name or ""
    dtype = (value.dtype or ir.DataType.FLOAT).numpy().name
    return Tensor(name=name, dtype=dtype, shape=_shape(value), role=name, pad=pads.get(name))


def _shape(value: ir.Value) -> tuple[int | str, ...]:
    dims = value.shape if value.shape is not None else ()
    return tuple(dim if isinstance(dim, int) else str(dim.value or "?") for dim in dims)


def write(program: ir.Model, folder: Path, *, beside: Path | None = None) -> None:
    """Write model.onnx and check it; the files its weights lie in are there already.

    `beside` is the checkpoint that gets the graph as well: there, any tool can open it.

    Raises:
        ExportError: the graph is not valid ONNX.
        ConfigError: the checkpoint's folder keeps its weights as links, or cannot be written.
    """
    path = folder / MODEL
    forget(program)
    program.producer_name, program.producer_version = "llmdeploy", __version__
    ir.save(program, path)
    if beside is not None:
        name = f"{folder.name}.onnx" if folder.name in COMPONENTS else MODEL
        _place(path, beside / name)
        check(beside / name)
    elif not (folder / referenced.FILE).is_file():
        check(path)


def check(path: Path) -> None:
    """Raise ExportError when the file is not valid ONNX."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise ExportError(
            f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}",
            where=path,
            mend="another --opset",
        ) from error


def _place(source: Path, target: Path) -> None:
    """Put the graph beside the checkpoint's weights, in one step."""
    links = [path.name for path in target.parent.glob("*.safetensors") if path.is_symlink()]
    if links:
        raise ConfigError(
            f"{links[0]} is a link, which no reader of ONNX follows out of its folder",
            where=target.parent,
            mend="--weights copy: the hub's cache keeps its files as links",
        )
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write into the checkpoint: {error.strerror}",
            where=target,
            mend="--weights reference or copy",
        ) from error
