"""Which stored tensor each parameter of a transformers model comes from.

transformers 5 renames tensors while loading and merges or splits some (its conversion mapping:
legacy gamma/beta, stacked experts). This follows the same mapping without reading a weight: a
renamed tensor is still where it was, a merged one is computed when it is written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from ... import ExportError
from .data import DTYPES, blocks, finite
from .stored import Stored

#: Reads a stored tensor from disk, as a torch tensor.
Read = Callable[[Stored], Any]


class Made(Protocol):
    """Parameters that have to be computed from what is stored."""

    @property
    def targets(self) -> Sequence[str]:
        """Every parameter that comes out."""
        ...

    def tensors(self, model: Any) -> Iterator[tuple[str, Any]]:
        """The parameters by name, few of them in memory at a time."""
        ...


def read(source: Stored) -> Any:
    """A stored tensor as torch's, checked for NaN and infinity."""
    import torch

    parts = [finite(source, block).view(np.uint8) for block in blocks(source)]
    kind = getattr(torch, DTYPES[source.dtype].numpy().name)
    return torch.from_numpy(np.concatenate(parts)).view(kind).view(source.shape)


@dataclass
class Merge:
    """Tensors of the checkpoint that transformers turns into others: `converter` does it."""

    first: str
    converter: Any
    sources: list[tuple[str, Stored]] = field(default_factory=list)
    #: Every parameter that comes out.
    targets: tuple[str, ...] = ()

    def tensors(self, model: Any, read: Read = read) -> Iterator[tuple[str, Any]]:
        """The parameters that come out, by name; the sources are read now and let go."""
        converter = deepcopy(self.converter)
        for pattern, source in self.sources:
            converter.add_tensor(self.first, source.name, pattern, partial(read, source))
        made = converter.convert(self.first, model=model, config=model.config)
        for name, one in made.items():
            yield name, one[0] if isinstance(one, list) else one


@dataclass(frozen=True)
class Plan:
    """Where every parameter and persistent buffer comes from, by its name in the model."""

    direct: Mapping[str, Stored]
    merged: Sequence[Made]
    unused: tuple[str, ...] = ()

    def given(self) -> set[str]:
        """Names that the checkpoint has something for."""
        return {*self.direct, *(name for merge in self.merged for name in merge.targets)}


def plan(model: Any, tensors: Mapping[str, Stored]) -> Plan:
    """Match the checkpoint's tensors to a model's state, as `from_pretrained` would.

    Raises:
        ExportError: a tensor's shape is not the parameter's.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    state = model.state_dict()
    direct: dict[str, Stored] = {}
    merged: dict[str, Merge] = {}
    unused: list[str] = []
    for name in _in_order(tensors):
        target, pattern = _target(name, renamings, converters, model.base_model_prefix, state)
        if target not in state:
            unused.append(name)
        elif pattern is None:
            direct.setdefault(target, tensors[name])
        else:
            merge = merged.setdefault(target, Merge(target, by_pattern[pattern]))
            merge.sources.append((pattern, tensors[name]))
    _check_shapes(direct, state)
    for merge in merged.values():
        _try(merge, model, state)
    return Plan(direct, tuple(merged.values()), tuple(unused))


def _try(merge: Merge, model: Any, state: Mapping[str, Any]) -> None:
    """Run a merge on shapes alone: what comes out, and whether it fits."""
    import torch

    def shape_of(source: Stored) -> Any:
        return torch.empty(source.shape, device="meta")

    try:
        made = dict(merge.tensors(model, shape_of))
    except Exception as error:
        raise ExportError(
            f"{merge.first} cannot be made of the checkpoint's tensors: {error}",
            where=merge.sources[0][1].file,
            mend="mend config.json, or a newer transformers",
        ) from error
    for name, one in made.items():
        if name in state and one.shape != state[name].shape:
            raise ExportError(
                f"the checkpoint's tensors give {name} as {list(one.shape)} where config.json asks "
                f"for {list(state[name].shape)}",
                where=merge.sources[0][1].file,
                mend="mend config.json",
            )
    merge.targets = tuple(made)


def _in_order(names: Iterable[str]) -> list[str]:
    from transformers.core_model_loading import dot_natural_key

    return sorted(names, key=dot_natural_key)


def _target(
    name: str, renamings: list[Any], converters: list[Any], prefix: str, state: dict[str, Any]
) -> tuple[str, str | None]:
    from transformers.core_model_loading import rename_source_key

    target, pattern = rename_source_key(name, renamings, converters, prefix, state)
    if target not in state and name in state:
        return rename_source_key(name, [], [], prefix, state)
    return target, pattern


def _check_shapes(direct: Mapping[str, Stored], state: Mapping[str, Any]) -> None:
    for name, source in direct.items():
        if source.shape != tuple(state[name].shape):
            raise ExportError(
                f"tensor {source.name} is {list(source.shape)} where config.json asks for "
                f"{list(state[name].shape)}",
                where=source.file,
                mend="mend config.json",
            )


def tie(model: Any, plan: Plan, same: Callable[[Stored, Stored], bool]) -> None:
    """Tie the model's shared parameters, but not a pair that the checkpoint holds apart."""
    for target, source in list(model.all_tied_weights_keys.items()):
        one, other = plan.direct.get(target), plan.direct.get(source)
        if one and other and not same(one, other):
            model.all_tied_weights_keys.pop(target)
    missing = {name for name in model.state_dict() if name not in plan.given()}
    model.tie_weights(missing_keys=missing, recompute_mapping=False)


def named(module: Any) -> list[tuple[str, Any]]:
    """Every parameter and buffer with its name; a shared one with each of its names."""
    return [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
