"""The graphs a task becomes, each with example inputs, named dimensions and roles."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ... import ConfigError, ExportError
from ...deploy.signature import Bounds
from ..checkpoint import read_json
from ..longest import limit_of
from . import modules
from .blame import explain
from .cache import Shapes, causal_shapes

#: Sizes to trace at: all different, none 0 or 1, which torch.export would take for constants.
SIZES = {"batch": 2, "sequence": 3, "choices": 5, "past": 7, "total": 10, "source": 11, "texts": 4}
Axes = dict[int, str]
Side = Literal["left", "right"]


@dataclass(frozen=True)
class Component:
    """One graph: the module to trace, example inputs by name, and what io.json says of them.

    A list of tensors is several inputs: `past_key` stands for `past_key.0`, `past_key.1`, ...
    `dims` names the dynamic axes of each argument; `bounds` limits those names.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Any]
    dims: dict[str, Axes]
    bounds: dict[str, Bounds]
    pads: Mapping[str, int] = field(default_factory=dict[str, int])
    padding_side: Side = "right"
    truncation_side: Side = "right"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A model to take apart: where its files are, and what it is for."""

    folder: Path
    model: Any
    task: str

    @property
    def tokenizer(self) -> dict[str, Any]:
        """tokenizer_config.json."""
        return read_json(self.folder / "tokenizer_config.json")

    def side(self, key: str) -> Side:
        """A side of texts that tokenizer_config.json names, the right one where it does not."""
        return "left" if self.tokenizer.get(key) == "left" else "right"


#: What `max_batch` and `max_sequence` limit.
_BATCH, _SEQUENCE = ("batch", "texts"), ("sequence", "source", "past", "total")


def limited(part: Component, batch: int | None, sequence: int | None) -> Component:
    """The component with no more than so many rows and tokens, where the model allows more."""
    asked = dict.fromkeys(_BATCH, batch) | dict.fromkeys(_SEQUENCE, sequence)
    bounds = {
        name: Bounds(min=one.min, max=min(filter(None, (one.max, asked.get(name))), default=None))
        for name, one in part.bounds.items()
    }
    return replace(part, bounds=bounds)


def components(subject: Subject) -> list[Component]:
    """The graphs of the subject's task.

    Raises:
        ExportError: the model cannot be run on shapes alone.
    """
    try:
        return _components(subject)
    except (ExportError, ConfigError):
        raise
    except Exception as error:
        raise explain(subject.model, error) from error


def _components(subject: Subject) -> list[Component]:
    from . import media, seq2seq

    if subject.task in seq2seq.TASKS:
        return seq2seq.components(subject)
    build = _causal if subject.task == "text-generation" else media.builder(subject) or text
    return [build(subject)]


def text(subject: Subject) -> Component:
    """Token ids and their mask, shape [batch, sequence]; [batch, choices, sequence] for choices."""
    model = subject.model
    if subject.task == "feature-extraction" and model.config.is_encoder_decoder:
        model = model.get_encoder()
    names = ["input_ids", "attention_mask"]
    if _has_token_types(model.config, subject.tokenizer):
        names.append("token_type_ids")
    choices = subject.task == "multiple-choice"
    axes = ("batch", "choices", "sequence") if choices else ("batch", "sequence")
    names = accepted(model, names)
    return Component(
        name="",
        module=modules.Plain(model, flags(model)),
        inputs={name: ones(*axes) for name in names},
        dims={name: dict(enumerate(axes)) for name in names},
        bounds={**{axis: Bounds() for axis in axes}, "sequence": sequence_bounds(subject)},
        pads=pads(subject),
        padding_side=subject.side("padding_side"),
        truncation_side=subject.side("truncation_side"),
    )


def _causal(subject: Subject) -> Component:
    """Token ids [batch, sequence], their mask [batch, total], keys and values of the past."""
    model = subject.model
    shapes = causal_shapes(model)
    if shapes is None:
        note = "exported without a cache: it keeps a state that is not keys and values"
        return replace(text(subject), padding_side="left", notes=(note,))
    inputs: dict[str, Any] = {name: ones("batch", "sequence") for name in _ids(model)}
    inputs["attention_mask"] = ones("batch", "total")
    dims: dict[str, Axes] = {name: {0: "batch", 1: "sequence"} for name in _ids(model)}
    dims["attention_mask"] = {0: "batch", 1: "total"}
    kept = past(shapes, "past", SIZES["past"], model.dtype)
    longest = sequence_bounds(subject)
    return Component(
        name="",
        module=modules.CausalLM(model),
        inputs=inputs | kept,
        dims=dims | {name: {0: "batch", 2: "past"} for name in kept},
        bounds={
            "batch": Bounds(),
            "sequence": longest,
            "past": Bounds(min=0, max=longest.max),
            "total": longest,
        },
        pads=pads(subject) | {"position_ids": 0},
        padding_side="left",
    )


def _ids(model: Any) -> list[str]:
    return accepted(model, ["input_ids", "position_ids"])


def past(
    shapes: Shapes, dim: str, length: int, dtype: torch.dtype
) -> dict[str, list[torch.Tensor]]:
    """Example keys and values, a list a layer, as `<dim>_key` and `<dim>_value`."""
    batch = SIZES["batch"]
    return {
        f"{dim}_{kind}": [
            torch.zeros((batch, one[kind][0], length, one[kind][1]), dtype=dtype) for one in shapes
        ]
        for kind in ("key", "value")
    }


def flags(model: Any) -> dict[str, Any]:
    """Arguments that keep the past out of a forward."""
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}


def accepted(model: Any, names: list[str]) -> list[str]:
    """Those of the names that the model's forward takes."""
    parameters = inspect.signature(model.forward).parameters
    return [name for name in names if name in parameters]


def ones(*axes: str) -> torch.Tensor:
    """Ones of int64 at the axes' example sizes."""
    return torch.ones([SIZES[axis] for axis in axes], dtype=torch.int64)


def _has_token_types(config: Any, tokenizer: Mapping[str, Any]) -> bool:
    listed = tokenizer.get("model_input_names")
    return (getattr(config, "type_vocab_size", 0) or 0) > 1 and (
        listed is None or "token_type_ids" in listed
    )


def sequence_bounds(subject: Subject) -> Bounds:
    """At least 1, up to what the position table has room for."""
    config = subject.model.config
    config = getattr(config, "text_config", None) or config  # CLIP's, beside the images'
    found = [
        getattr(config, "max_position_embeddings", None),
        getattr(config, "max_target_positions", None),  # a speech model's texts
    ]
    limits = [limit - _before(subject.model) for limit in map(limit_of, found) if limit]
    return Bounds(max=min(limits, default=None))


def _before(model: Any) -> int:
    """Places of the position table that no token takes: RoBERTa counts from its padding's on."""
    tables = (getattr(each, "position_embeddings", None) for each in model.modules())
    padding = (getattr(table, "padding_idx", None) for table in tables)
    return max((place + 1 for place in padding if isinstance(place, int)), default=0)


def pads(subject: Subject) -> dict[str, int]:
    """What batching fills text inputs with."""
    return {
        "input_ids": _pad_token(subject),
        "attention_mask": 0,
        "token_type_ids": 0,
    }


def _pad_token(subject: Subject) -> int:
    """config.json's, else the tokenizer's, else 0.

    The tokenizer's may be one that the embedding was never widened for: then any id will do.
    """
    config = subject.model.config
    known = getattr(config, "pad_token_id", None)
    if known is not None and known >= 0:  # -1 stands for none
        return int(known)
    token = subject.tokenizer.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    added = read_json(subject.folder / "tokenizer.json").get("added_tokens", [])
    found = next((one["id"] for one in added if token and one.get("content") == token), 0)
    rows = getattr(getattr(config, "text_config", None) or config, "vocab_size", None)
    return 0 if rows and found >= rows else found
