"""checkpoint -> export/: the graph traced without weights, the weights moved without memory."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import ConfigError, ExportError, MissingError
from ...deploy.signature import Signature
from .. import checkpoint as checkpoints
from .quiet import quiet

if TYPE_CHECKING:  # they import torch, which an export alone needs
    from .components import Component
    from .phantom import Phantoms
    from .plan import Plan
    from .stored import Stored
    from .task import Target

Feed = Mapping[str, NDArray[np.generic]]
_COUNTED = ("parameters", "weight_bytes", "nodes")
#: An own copy, left in the checkpoint, or left there with the graph written beside them.
WEIGHTS = ("copy", "reference", "in-place")


@dataclass(frozen=True)
class _Asked:
    task: str
    opset: int
    dtype: str
    weights: str
    max_batch: int | None
    max_sequence: int | None
    trust: bool


@dataclass(frozen=True)
class _Opened:
    folder: Path
    config: Any
    target: Target


@dataclass(frozen=True)
class _Origin:
    """A checkpoint opened, its model built of phantoms, and where each weight really is."""

    opened: _Opened
    model: Any
    plan: Plan
    phantoms: Phantoms


def export(
    checkpoint: str,
    folder: Path,
    *,
    task: str = "auto",
    opset: int = 20,
    dtype: str = "float32",
    weights: str = "copy",
    max_batch: int | None = None,
    max_sequence: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Fill `folder` with model.onnx, its weights, io.json, tokenizer and configuration.

    `max_batch` rows and `max_sequence` tokens are the most that io.json then allows; without the
    latter, as many tokens as the checkpoint's own files say a text is cut after.

    Raises:
        ConfigError: no such checkpoint, task or option.
        MissingError: the hub cannot be reached, or the `export` extra is not installed.
        ExportError: the checkpoint is refused, or its architecture cannot be exported.
    """
    if weights not in WEIGHTS:
        raise ConfigError(
            f"no way {weights!r} to keep weights", mend=f"one of {', '.join(WEIGHTS)}"
        )
    source = _admit(checkpoint, revision, trust_remote_code)
    asked = _Asked(task, opset, dtype, weights, max_batch, max_sequence, trust_remote_code)
    with quiet():
        return _export(source, folder, asked)


def _export(source: Path, folder: Path, asked: _Asked) -> dict[str, Any]:
    from . import gguf
    from .beside import carry
    from .components import Subject, components

    packed = gguf.only(source)
    with gguf.unpacked(packed) if packed else nullcontext(source) as home:
        origin = _origin(_open(home, asked.task, asked.trust), asked.dtype, packed)
        target = origin.opened.target
        parts = components(Subject(home, origin.model, target.task))
        graphs = [_component(origin, part, folder / part.name, asked) for part in parts]
        notes = [*target.notes, *(note for graph in graphs for note in graph.pop("notes"))]
        notes += carry(home, folder, asked.trust)
    if len(parts) > 1:
        Signature(
            task=target.task,
            architecture=target.model_class.__name__,
            inputs=(),
            outputs=(),
            components=tuple(part.name for part in parts),
        ).save(folder)
    return {
        "task": target.task,
        "architecture": target.model_class.__name__,
        "opset": graphs[0].pop("opset"),
        **{name: sum(graph[name] for graph in graphs) for name in _COUNTED},
        "components": [part.name for part in parts if part.name],
        "weights": asked.weights,
        "self_contained": asked.weights == "copy",
        "notes": list(dict.fromkeys(notes)),
    }


def _origin(opened: _Opened, dtype: str, packed: Path | None) -> _Origin:
    """Build the model without its weights, and find where each of them is."""
    from .data import same
    from .fresh import compute
    from .gguf import Blocks
    from .phantom import phantom_parameters
    from .plan import Plan, plan, tie
    from .stored import stored

    tensors = {} if packed else stored(opened.folder)
    with phantom_parameters() as phantoms:
        model = _build(opened, _kind(opened, tensors, dtype))
        _keep_in_float32(model)
    found = Plan({}, [Blocks(packed, model)]) if packed else plan(model, tensors)
    tie(model, found, same)
    compute(model, model.state_dict().keys() - found.given(), phantoms)
    return _Origin(opened, model, found, phantoms)


def _keep_in_float32(model: Any) -> None:
    """Leave in float32 what `from_pretrained` would: some modules overflow in float16."""
    import torch
    from torch import nn
    from transformers.core_model_loading import build_glob_alternation

    kept = model._get_dtype_plan(model.dtype)
    if not kept:
        return
    pattern, _, _ = build_glob_alternation(list(kept))
    for name, one in list(model.named_parameters()):
        if pattern.search(name) and one.dtype != torch.float32:
            owner, _, leaf = name.rpartition(".")
            wide = torch.empty(one.shape, dtype=torch.float32, device="meta")
            model.get_submodule(owner).register_parameter(leaf, nn.Parameter(wide, False))


def _component(origin: _Origin, part: Component, folder: Path, asked: _Asked) -> dict[str, Any]:
    """Trace one graph, give it its weights and write it into `folder`."""
    from .. import referenced
    from ..longest import longest
    from . import finish, pooling
    from .components import limited
    from .names import name_nodes
    from .trace import trace
    from .weights import Weights

    folder.mkdir(parents=True, exist_ok=True)
    target, config = origin.opened.target, origin.opened.config
    program = trace(part, origin.model, asked.opset)
    pool = pooling.read(origin.opened.folder) if target.task == "feature-extraction" else None
    unprompted = pooling.unprompted(origin.opened.folder) if pool else []
    if pool:
        pooling.append(program, pool)
    finish.split_plainly(program)
    finish.prune(program)
    finish.drop_unused_inputs(program)
    name_nodes(program.graph)
    refer = asked.weights != "copy"
    writer = Weights(origin.model, origin.plan, origin.phantoms, folder, refer=refer)
    notes = finish.drop_untrained(program, writer.missing)
    placed = writer.place(program.graph)
    if refer:
        referenced.leave(folder, origin.opened.folder, placed.files)
    beside = origin.opened.folder if asked.weights == "in-place" else None
    finish.write(program, folder, beside=beside)
    allowed = limited(part, asked.max_batch, asked.max_sequence or longest(origin.opened.folder))
    finish.signature(program.graph, target, allowed, config).save(folder)
    return {
        "opset": program.opset_imports[""],
        "parameters": placed.parameters,
        "weight_bytes": placed.weight_bytes,
        "nodes": program.graph.num_nodes(),
        "notes": [*part.notes, *unprompted, *notes, *placed.notes],
    }


def _admit(checkpoint: str, revision: str | None, trust: bool) -> Path:
    from . import gguf
    from .quantized import refuse_quantized

    source = checkpoints.locate(checkpoint, revision)
    if source.is_dir():
        checkpoints.refuse_code(source, trust)
        checkpoints.refuse_pickles(source)
        if gguf.only(source) is None:
            refuse_quantized(source)
    _need()
    return source


def _need() -> None:
    for name in ("torch", "transformers", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise MissingError(f"exporting needs {name}", mend="pip install 'llmdeploy[export]'")


def _open(source: Path, task: str, trust: bool) -> _Opened:
    from transformers import AutoConfig

    from .task import target

    try:
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=trust)
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise ExportError(
            f"transformers cannot read config.json: {str(error).splitlines()[0]}",
            where=source,
            mend="a newer transformers, or mend config.json",
        ) from error
    return _Opened(source, config, target(source, config, task, trust))


def _kind(opened: _Opened, tensors: Mapping[str, Stored], dtype: str) -> Any:
    """Torch's dtype of that name; of `auto` config.json's, else that of most of the weights."""
    import torch

    from .data import FLOATS

    if dtype == "auto" and opened.config.dtype is not None:
        return opened.config.dtype
    if dtype == "auto":
        sizes = Counter({"float32": 0})
        for each in tensors.values():
            sizes[FLOATS.get(each.dtype, "float32")] += each.length
        return getattr(torch, sizes.most_common(1)[0][0])
    if dtype not in FLOATS.values():
        mend = f"auto or one of {', '.join(FLOATS.values())}"
        raise ConfigError(f"no dtype {dtype!r}", mend=mend)
    return getattr(torch, dtype)


def _build(opened: _Opened, kind: Any) -> Any:
    try:
        return opened.target.model_class._from_config(opened.config, dtype=kind).eval()
    except Exception as error:
        raise ExportError(
            f"the model cannot be built: {type(error).__name__}: {str(error).splitlines()[0]}",
            where=opened.target.model_class.__name__,
            mend="mend config.json, or a newer transformers",
        ) from error


def reference(
    checkpoint: str,
    feeds: Iterable[Feed],
    *,
    task: str,
    component: str = "",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """What torch computes in float32 on one feed after the other, by the graph's output names.

    `component` names the graph where the task has several (`encoder`, `decoder`). It loads the
    model as `from_pretrained` does, so it holds the weights in memory.

    Raises:
        ConfigError, MissingError, ExportError: as `export`.
    """
    from . import gguf
    from .original import outputs

    source = _admit(checkpoint, revision, trust_remote_code)
    with quiet():
        packed = gguf.only(source)
        with gguf.unpacked(packed) if packed else nullcontext(source) as home:
            target = _open(home, task, trust_remote_code).target
            yield from outputs(home, source, target, component, feeds, trust_remote_code)
