"""sentence-transformers' pooling and normalisation as standard ONNX nodes.

The modules and their meaning: https://sbert.net/docs/package_reference/sentence_transformer/models.html
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ... import ExportError
from ..checkpoint import read_json

OUTPUT = "sentence_embedding"
_KINDS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Pooling:
    """The poolings to concatenate, in order, and whether to normalise."""

    modes: tuple[str, ...]
    normalize: bool


def read(folder: Path) -> Pooling | None:
    """The pooling a sentence encoder asks for; None where the checkpoint is none.

    Raises:
        ExportError: a module or a mode that is not known.
    """
    import json

    path = folder / "modules.json"
    if not path.is_file():
        return None
    modules = json.loads(path.read_text(encoding="utf-8"))
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise ExportError(
            f"the sentence encoder's module {unknown[0]} is not known",
            where=path,
            mend="export the transformer alone: remove modules.json from a copy",
        )
    found = next((one for one, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), None)
    if found is None:
        return None
    config = read_json(folder / found["path"] / "config.json")
    return Pooling(_modes(config, path), "Normalize" in kinds)


def unprompted(folder: Path) -> list[str]:
    """A note where sentence-transformers puts a prompt before every text: nothing here does."""
    config = read_json(folder / "config_sentence_transformers.json")
    name, prompts = config.get("default_prompt_name"), config.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not prompt:
        return []
    return [f"sentence-transformers puts {prompt!r} ({name}) before every text: give texts with it"]


def _modes(config: dict[str, Any], path: Path) -> tuple[str, ...]:
    named = config.get("pooling_mode")  # beside it older switches count for nothing
    switched = {key.removeprefix("pooling_mode_") for key, on in config.items() if on is True}
    alias = {f"{mode}_tokens": mode for mode in ("max", "mean", "weightedmean")}
    alias |= {"cls_token": "cls", "mean_sqrt_len": "mean_sqrt_len_tokens"}
    older = {alias.get(mode, mode) for mode in switched - {"include_prompt"}}
    asked = [named] if isinstance(named, str) else list(named or ())
    asked = asked or [*(mode for mode in _POOLS if mode in older), *sorted(older - _POOLS.keys())]
    unknown = [mode for mode in asked if mode not in _POOLS]
    if unknown or not asked:
        raise ExportError(
            f"the pooling mode {unknown[0] if unknown else 'none'} is not known",
            where=path,
            mend=f"say one of {', '.join(_POOLS)} in the config.json of its pooling",
        )
    return tuple(asked)


def append(model: ir.Model, pooling: Pooling, hidden: str = "last_hidden_state") -> None:
    """Make `sentence_embedding` [batch, hidden], float32, the graph's one output.

    Raises:
        ExportError: the graph has no such hidden state, or no attention mask.
    """
    graph = model.graph
    state = next((value for value in graph.outputs if value.name == hidden), None)
    mask = next((value for value in graph.inputs if value.name == "attention_mask"), None)
    if state is None or mask is None:
        raise ExportError(f"no {hidden} or attention_mask to pool", where="the graph")
    tape = _Tape(graph)
    kind = state.dtype or ir.DataType.FLOAT
    weights = tape("Unsqueeze", tape("Cast", mask, to=kind.value), tape.ints(2))
    weights.dtype = kind
    parts = [_POOLS[mode](tape, state, weights) for mode in pooling.modes]
    made = parts[0] if len(parts) == 1 else tape("Concat", *parts, axis=-1)
    if pooling.normalize:
        norm = tape("ReduceL2", made, tape.ints(-1), keepdims=1)
        made = tape("Div", made, tape("Max", norm, tape.number(1e-12, kind)))
    width = state.shape[-1] if state.shape is not None else None
    size = width * len(parts) if isinstance(width, int) else None
    made.name, made.dtype, made.shape = OUTPUT, kind, ir.Shape(["batch", size])
    graph.outputs.clear()
    graph.outputs.append(made)


class _Tape:
    """Appends nodes to a graph; each has one output."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._count = 0

    def __call__(self, op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(op, list(inputs), attributes, name=f"pooling.{self._count}.{op}")
        node.outputs[0].name = f"pooling.{self._count}"
        self._count += 1
        self.graph.append(node)
        return node.outputs[0]

    def constant(self, array: Any) -> ir.Value:
        return self("Constant", value=ir.tensor(array))

    def ints(self, *values: int) -> ir.Value:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, kind: ir.DataType) -> ir.Value:
        return self.constant(np.array(value, kind.numpy()))


def _sum(tape: _Tape, value: ir.Value) -> ir.Value:
    return tape("ReduceSum", value, tape.ints(1), keepdims=0)


def _mean(tape: _Tape, state: ir.Value, weights: ir.Value, root: bool = False) -> ir.Value:
    kind = state.dtype or ir.DataType.FLOAT
    # float16 has no 1e-9: its least normal number stands in
    least = 1e-9 if kind != ir.DataType.FLOAT16 else 6.2e-5
    count = tape("Max", _sum(tape, weights), tape.number(least, kind))
    total = _sum(tape, tape("Mul", state, weights))
    return tape("Div", total, tape("Sqrt", count) if root else count)


def _root_mean(tape: _Tape, state: ir.Value, weights: ir.Value) -> ir.Value:
    return _mean(tape, state, weights, root=True)


def _first(tape: _Tape, state: ir.Value, weights: ir.Value) -> ir.Value:
    return tape("Gather", state, tape.constant(np.array(0, np.int64)), axis=1)


def _greatest(tape: _Tape, state: ir.Value, weights: ir.Value) -> ir.Value:
    kind = state.dtype or ir.DataType.FLOAT
    masked = tape("Equal", weights, tape.number(0, kind))
    low = tape.number(-1e9 if kind != ir.DataType.FLOAT16 else -65504, kind)
    return tape("ReduceMax", tape("Where", masked, low, state), tape.ints(1), keepdims=0)


def _positions(tape: _Tape, weights: ir.Value) -> ir.Value:
    """1, 2, 3, ... along the sequence, 0 at padding; int64 [batch, sequence, 1].

    In bfloat16 all places from 256 on would be one number, in float16 neighbours from 2048 on.
    """
    one, zero = (tape.constant(np.array(value, np.int64)) for value in (1, 0))
    there = tape("Cast", weights, to=ir.DataType.INT64.value)
    ones = tape("Add", tape("Mul", there, zero), one)
    # TensorRT sums up floats alone
    places = tape("CumSum", tape("Cast", ones, to=ir.DataType.FLOAT.value), one)
    return tape("Mul", tape("Cast", places, to=ir.DataType.INT64.value), there)


def _weighted(tape: _Tape, state: ir.Value, weights: ir.Value) -> ir.Value:
    kind = weights.dtype or ir.DataType.FLOAT
    places = tape("Cast", _positions(tape, weights), to=kind.value)
    places.dtype = kind
    return _mean(tape, state, places)


def _last(tape: _Tape, state: ir.Value, weights: ir.Value) -> ir.Value:
    kind = weights.dtype or ir.DataType.FLOAT
    places = _positions(tape, weights)
    end = tape("ReduceMax", places, tape.ints(1), keepdims=1)
    chosen = tape("Cast", tape("Equal", places, end), to=kind.value)
    return _sum(tape, tape("Mul", state, tape("Mul", chosen, weights)))


_Pool = Callable[[_Tape, ir.Value, ir.Value], ir.Value]
#: By sentence-transformers' names, in the order it concatenates those that are switched on.
_POOLS: dict[str, _Pool] = {
    "cls": _first,
    "max": _greatest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _root_mean,
    "weightedmean": _weighted,
    "lasttoken": _last,
}
