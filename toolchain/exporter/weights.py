"""Give a traced graph its weights: the checkpoint's own bytes wherever they can serve."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ... import ConfigError, ExportError
from . import data
from .phantom import Phantoms
from .plan import Plan, named
from .stored import Stored

T = TypeVar("T")
DATA = "model.onnx.data"
_INLINE = 1 << 12  # bytes; a lesser constant stays in model.onnx
#: A file is copied whole when at least this share of it is used.
_LIVE = 0.5


@dataclass(frozen=True)
class Placed:
    """What placing the weights gave: elements, bytes, and the checkpoint's files that are used."""

    parameters: int
    weight_bytes: int
    files: tuple[str, ...]
    notes: tuple[str, ...]


class Weights:
    """Puts the initializers of one graph into files beside it."""

    def __init__(
        self, model: Any, plan: Plan, phantoms: Phantoms, folder: Path, *, refer: bool = False
    ) -> None:
        self._model = model
        self._plan = plan
        self._phantoms = phantoms
        self._folder = folder
        self._data = data.DataFile(folder / DATA)
        self._aliases = _aliases(model, plan.direct)
        self._made = _aliases(model, {name: name for m in plan.merged for name in m.targets})
        self._refer = refer
        self._notes: list[str] = []

    def place(self, graph: ir.Graph) -> Placed:
        """Give every initializer its place; the graph then needs nothing of torch.

        Raises:
            ExportError: a weight that the checkpoint has not, or that holds NaN or infinity.
        """
        names = list(graph.initializers)
        merged = self._merged(names)
        direct = {n: self._aliases[n] for n in names if n in self._aliases and n not in merged}
        copied = self._copied(graph, direct)
        for name in names:
            value = graph.initializers[name]
            source = direct.get(name)
            if name in merged:
                value.const_value = self._external(value, merged[name])
            elif source is None:
                value.const_value = self._constant(value)
            elif source.file in copied and data.DTYPES.get(source.dtype) == value.dtype:
                data.check(source)
                value.const_value = self._at(value, source, copied[source.file])
            else:
                why = f"tensor {source.name} is stored as {source.dtype}"
                self._may_write(why, direct.values())
                made = data.cast(source, _dtype(value))
                value.const_value = self._external(value, self._data.append(made))
        sizes = [one.const_value.nbytes for one in graph.initializers.values() if one.const_value]
        weights = [graph.initializers[name].const_value for name in (*direct, *merged)]
        count = sum(one.size for one in weights if one is not None)
        files = tuple(sorted(copied.values()))
        return Placed(count, sum(sizes), files, tuple(self._notes))

    def _may_write(self, why: str, stored: Iterable[Stored] = ()) -> None:
        """Raise ConfigError where weights are to be left in the checkpoint and cannot be.

        Where all that are `stored` are of one dtype, exporting in that leaves them.
        """
        if self._refer:
            kinds = {data.FLOATS.get(source.dtype, "") for source in stored}
            other = f", or --dtype {kinds.pop()}" if len(kinds) == 1 and all(kinds) else ""
            raise ConfigError(
                f"{why}: it has to be written anew",
                where=type(self._model).__name__,
                mend=f"--weights copy{other}",
            )

    def missing(self, graph: ir.Graph) -> list[str]:
        """Initializers that are parameters and that the checkpoint has not."""
        known = {*self._aliases, *self._made}
        return [
            name
            for name, value in graph.initializers.items()
            if name not in known and self._is_phantom(value)
        ]

    def _copied(self, graph: ir.Graph, direct: Mapping[str, Stored]) -> dict[Path, str]:
        used: dict[Path, int] = {}
        for name, source in direct.items():
            if data.DTYPES.get(source.dtype) == graph.initializers[name].dtype:
                used[source.file] = used.get(source.file, 0) + source.length
        names: dict[Path, str] = {}
        if self._refer:
            return {path: path.name for path in used}
        for path, size in used.items():
            if size >= _LIVE * path.stat().st_size:
                how = data.clone(path, self._folder / path.name)
                names[path] = path.name
                self._notes.append(f"{path.name}: {how}")
        return names

    def _at(self, value: ir.Value, source: Stored, location: str) -> ir.ExternalTensor:
        return self._tensor(value, location, source.offset, source.length)

    def _external(self, value: ir.Value, place: tuple[int, int]) -> ir.ExternalTensor:
        return self._tensor(value, DATA, *place)

    def _tensor(
        self, value: ir.Value, location: str, offset: int, length: int
    ) -> ir.ExternalTensor:
        shape = value.shape if value.shape is not None else ir.Shape([])
        return ir.ExternalTensor(
            location,
            offset,
            length,
            _dtype(value),
            shape=shape,
            name=value.name or "",
            base_dir=self._folder,
        )

    def _constant(self, value: ir.Value) -> ir.TensorProtocol:
        """A buffer or constant that the model computed itself."""
        if self._is_phantom(value):
            raise ExportError(
                f"the checkpoint has no tensor {value.name}",
                where=type(self._model).__name__,
                mend="another --task, or a checkpoint that was saved for this one",
            )
        tensor = value.const_value
        if tensor is None:
            raise ExportError(f"the constant {value.name} has no value", where="the graph")
        array = np.asarray(tensor.numpy())
        if array.nbytes < _INLINE or self._refer:
            return ir.tensor(array, dtype=tensor.dtype, name=value.name)
        return self._external(value, self._data.append([array.reshape(-1)]))

    def _is_phantom(self, value: ir.Value) -> bool:
        raw = getattr(value.const_value, "raw", None)
        return isinstance(raw, torch.Tensor) and raw in self._phantoms

    def _merged(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Compute and write what transformers merges, one merge at a time."""
        wanted = {self._made[name]: name for name in names if name in self._made}
        places: dict[str, tuple[int, int]] = {}
        for merge in self._plan.merged:
            if not wanted.keys() & set(merge.targets):
                continue
            self._may_write(f"{next(iter(merge.targets))} is made of several tensors")
            for target, tensor in merge.tensors(self._model):
                if target in wanted:
                    made = _numpy(self._model, target, tensor)
                    places[wanted[target]] = self._data.append([made])
        return places


def _aliases(model: Any, sources: Mapping[str, T]) -> dict[str, T]:
    """What gives a parameter by every name it has: tied ones have several."""
    by_id = {id(one): sources[name] for name, one in named(model) if name in sources}
    return {name: by_id[id(one)] for name, one in named(model) if id(one) in by_id}


def _dtype(value: ir.Value) -> ir.DataType:
    if value.dtype is None:
        raise ExportError(f"the weight {value.name} has no dtype", where="the graph")
    return value.dtype


def _numpy(model: Any, name: str, tensor: Any) -> NDArray[np.generic]:
    state = dict(named(model))[name]
    made = tensor.to(state.dtype).contiguous().reshape(-1)
    if made.shape[0] != state.numel() or not bool(torch.isfinite(made).all()):
        wrong = "does not fit its parameter" if made.shape[0] != state.numel() else "is not finite"
        raise ExportError(f"tensor {name} {wrong}", where=type(model).__name__)
    return made.view(torch.uint8).numpy()
