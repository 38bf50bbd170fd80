"""checkpoint -> export/: the graph traced without weights, the weights moved without memory."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .. import ConfigError, ExportError, MissingError
from ..deploy.signature import Signature, Tensor
from . import checkpoint as checkpoints
from .export_quiet import quiet

Feed = Mapping[str, NDArray[np.generic]]
MODEL = "model.onnx"


@dataclass(frozen=True)
class _Opened:
    folder: Path
    config: Any
    target: Any


def export(
    checkpoint: str,
    folder: Path,
    *,
    task: str = "auto",
    opset: int = 20,
    dtype: str = "float32",
    weights: str = "copy",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Fill `folder` with model.onnx, its weights, io.json, tokenizer and configuration.

    Raises:
        ConfigError: no such checkpoint, task or option.
        MissingError: the hub cannot be reached, or the `export` extra is not installed.
        ExportError: the checkpoint is refused, or its architecture cannot be exported.
    """
    if weights != "copy":
        raise ConfigError(f"no way {weights!r} to keep weights", mend="copy")
    source = _admit(checkpoint, revision, trust_remote_code)
    with quiet():
        return _export(source, folder, task, opset, dtype, weights, trust_remote_code)


def _export(
    source: Path, folder: Path, task: str, opset: int, dtype: str, weights: str, trust: bool
) -> dict[str, Any]:
    from . import export_beside, export_inputs, export_plan, export_trace, pooling
    from .export_data import same
    from .export_phantom import phantom_parameters
    from .export_stored import stored
    from .export_weights import Weights

    tensors = stored(source)
    opened = _open(source, task, trust)
    with phantom_parameters() as phantoms:
        model = _build(opened, dtype)
    plan = export_plan.plan(model, tensors)
    export_plan.tie(model, plan, same)
    example = export_inputs.text(source, model, opened.target.task)
    program = export_trace.trace(model, example, opset)
    pool = pooling.read(source) if opened.target.task == "feature-extraction" else None
    if pool:
        pooling.append(program, pool)
    _prune(program)
    writer = Weights(model, plan, phantoms, folder)
    notes = [*opened.target.notes, *_drop_untrained(program, writer)]
    placed = writer.place(program.graph)
    signature = _signature(program.graph, opened, example)
    program.producer_name = "llmdeploy"
    _save(program, folder)
    signature.save(folder)
    notes += [*placed.notes, *export_beside.carry(source, folder, trust)]
    return {
        "task": signature.task,
        "architecture": signature.architecture,
        "opset": program.opset_imports[""],
        "parameters": placed.parameters,
        "weight_bytes": placed.weight_bytes,
        "nodes": program.graph.num_nodes(),
        "weights": weights,
        "self_contained": True,
        "notes": notes,
    }


def _admit(checkpoint: str, revision: str | None, trust: bool) -> Path:
    source = checkpoints.locate(checkpoint, revision)
    checkpoints.refuse_code(source, trust)
    checkpoints.refuse_pickles(source)
    _need()
    return source


def _need() -> None:
    for name in ("torch", "transformers", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise MissingError(f"exporting needs {name}", mend="pip install 'llmdeploy[export]'")


def _open(source: Path, task: str, trust: bool) -> _Opened:
    from transformers import AutoConfig

    from .export_task import target

    try:
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=trust)
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise ExportError(
            f"transformers cannot read config.json: {str(error).splitlines()[0]}",
            where=source,
            mend="a newer transformers, or mend config.json",
        ) from error
    return _Opened(source, config, target(source, config, task, trust))


def _build(opened: _Opened, dtype: str) -> Any:
    import torch

    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    kind = (opened.config.dtype or torch.float32) if dtype == "auto" else kinds.get(dtype)
    if kind is None:
        raise ConfigError(f"no dtype {dtype!r}", mend=f"auto or one of {', '.join(kinds)}")
    try:
        return opened.target.model_class._from_config(opened.config, dtype=kind).eval()
    except Exception as error:
        raise ExportError(
            f"the model cannot be built: {type(error).__name__}: {str(error).splitlines()[0]}",
            where=opened.target.model_class.__name__,
            mend="mend config.json, or a newer transformers",
        ) from error


def _prune(program: ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(program)


def _drop_untrained(program: ir.Model, weights: Any) -> list[str]:
    """Drop outputs that only weights absent from the checkpoint give, but never the first one."""
    graph = program.graph
    missing = set(weights.missing(graph))
    if not missing:
        return []
    kept = [value for value in graph.outputs if not _needs(value, missing)]
    if not kept or kept[0] is not graph.outputs[0]:
        return []  # placing the weights will say which one is missing
    dropped = [value.name for value in graph.outputs if value not in kept]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    _prune(program)
    return [f"{name} dropped: its weights are not in the checkpoint" for name in dropped]


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


def _signature(graph: ir.Graph, opened: _Opened, example: Any) -> Signature:
    config = opened.config
    names = getattr(config, "id2label", None) or {}
    labels = () if "classification" not in opened.target.task else tuple(names.values())
    used = {dim for value in graph.inputs for dim in _shape(value) if isinstance(dim, str)}
    return Signature(
        task=opened.target.task,
        architecture=opened.target.model_class.__name__,
        inputs=tuple(_tensor(value, example.pads) for value in graph.inputs),
        outputs=tuple(_tensor(value, {}) for value in graph.outputs),
        dims={name: bounds for name, bounds in example.bounds.items() if name in used},
        labels=labels,
        padding_side=example.padding_side,
    )


def _tensor(value: ir.Value, pads: Mapping[str, int]) -> Tensor:
    name = value.name or ""
    dtype = (value.dtype or ir.DataType.FLOAT).numpy().name
    return Tensor(name=name, dtype=dtype, shape=_shape(value), role=name, pad=pads.get(name))


def _shape(value: ir.Value) -> tuple[int | str, ...]:
    dims = value.shape if value.shape is not None else ()
    return tuple(dim if isinstance(dim, int) else str(dim.value or "?") for dim in dims)


def _save(program: ir.Model, folder: Path) -> None:
    import onnx

    path = folder / MODEL
    ir.save(program, path)
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise ExportError(
            f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}",
            where=path,
            mend="another --opset",
        ) from error


def reference(
    checkpoint: str,
    feeds: Sequence[Feed],
    *,
    task: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[dict[str, NDArray[np.generic]]]:
    """What torch computes in float32 on each feed, under the graph's output names.

    It loads the model as `from_pretrained` does, so it holds the weights in memory.

    Raises:
        ConfigError, MissingError, ExportError: as `export`.
    """
    from .export_reference import outputs

    source = _admit(checkpoint, revision, trust_remote_code)
    with quiet():
        opened = _open(source, task, trust_remote_code)
        return outputs(source, opened.target, feeds, trust_remote_code)
