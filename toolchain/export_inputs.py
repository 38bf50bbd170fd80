"""Example inputs to trace a task with, and what is known of each: role, padding, dimensions."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..deploy.signature import Bounds
from .checkpoint import read_json

#: Sizes to trace at: all different, none 0 or 1, which torch.export would take for constants.
SIZES = {"batch": 2, "sequence": 3, "choices": 5}


@dataclass(frozen=True)
class Example:
    """Keyword arguments of `forward`, their dynamic dimensions, and what io.json says of them.

    `dims` maps an argument to the name of each dynamic axis; `bounds` limits those names.
    """

    inputs: dict[str, Any]
    dims: dict[str, dict[int, str]]
    bounds: dict[str, Bounds]
    pads: Mapping[str, int] = field(default_factory=dict[str, int])
    flags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    padding_side: str = "right"


def text(folder: Path, model: Any, task: str) -> Example:
    """Token ids and their mask, shape [batch, sequence]; [batch, choices, sequence] for choices."""
    tokenizer = read_json(folder / "tokenizer_config.json")
    names = ["input_ids", "attention_mask"]
    if _has_token_types(model, tokenizer):
        names.append("token_type_ids")
    axes = ("batch", "choices", "sequence") if task == "multiple-choice" else ("batch", "sequence")
    shape = [SIZES[axis] for axis in axes]
    bounds = {axis: Bounds() for axis in axes}
    bounds["sequence"] = Bounds(max=longest(model.config, tokenizer))
    accepted = inspect.signature(model.forward).parameters
    return Example(
        inputs={name: torch.ones(shape, dtype=torch.int64) for name in names if name in accepted},
        dims={name: dict(enumerate(axes)) for name in names if name in accepted},
        bounds=bounds,
        pads={
            "input_ids": pad_token(folder, model.config),
            "attention_mask": 0,
            "token_type_ids": 0,
        },
        flags={"use_cache": False} if hasattr(model.config, "use_cache") else {},
        padding_side=tokenizer.get("padding_side", "right"),
    )


def _has_token_types(model: Any, tokenizer: Mapping[str, Any]) -> bool:
    listed = tokenizer.get("model_input_names")
    return (getattr(model.config, "type_vocab_size", 0) or 0) > 1 and (
        listed is None or "token_type_ids" in listed
    )


def longest(config: Any, tokenizer: Mapping[str, Any]) -> int | None:
    """The longest sequence: the lesser of the position table's and the tokenizer's limit."""
    found = [
        getattr(config, "max_position_embeddings", None),
        tokenizer.get("model_max_length"),  # 1e30 where nothing limits it
    ]
    limits = [int(one) for one in found if one and 0 < one < 1 << 31]
    return min(limits, default=None)


def pad_token(folder: Path, config: Any) -> int:
    """The id that fills `input_ids`: config.json's, else the tokenizer's, else 0."""
    if getattr(config, "pad_token_id", None) is not None:
        return int(config.pad_token_id)
    token = read_json(folder / "tokenizer_config.json").get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    added = read_json(folder / "tokenizer.json").get("added_tokens", [])
    found = (one["id"] for one in added if token and one.get("content") == token)
    return next(found, 0)
