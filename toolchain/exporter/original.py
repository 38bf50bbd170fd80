"""The real model in torch, run on feeds: what every later stage is compared with."""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ... import ConfigError, MissingError
from . import gguf, pooling
from .blame import ran
from .components import Subject, components
from .task import Target

Feed = Mapping[str, NDArray[np.generic]]
Arrays = dict[str, NDArray[np.generic]]
#: numpy's kinds of floats: its own, and bfloat16, which is none of its own.
_FLOATS = "fV"


def outputs(
    home: Path, source: Path, target: Target, component: str, feeds: Iterable[Feed], trust: bool
) -> Iterator[Arrays]:
    """Load the checkpoint in float32 and run it on one feed after the other, without gradients.

    `home` holds its configuration: `source` itself, or what was unpacked of a GGUF file.

    Raises:
        ConfigError: no such component.
        ExportError: the checkpoint's own code fails on a feed.
    """
    model = load(source, target, trust).eval()
    parts = {part.name: part.module for part in components(Subject(home, model, target.task))}
    if component not in parts:
        raise ConfigError(f"no component {component!r}", mend=f"one of {', '.join(parts)}")
    pool = pooling.read(home) if target.task == "feature-extraction" else None
    for feed in feeds:
        try:
            with torch.no_grad():
                made = _run(parts[component], pool, feed)
        except MemoryError:
            raise
        except Exception as error:
            raise ran(parts[component], error) from error
        yield made
        del made  # before the next are made: outputs may be large


def load(source: Path, target: Target, trust: bool) -> Any:
    """The checkpoint in float32, as `from_pretrained` gives it."""
    packed = gguf.only(source)
    if packed is None:
        return target.model_class.from_pretrained(
            str(source), dtype=torch.float32, trust_remote_code=trust
        )
    if importlib.util.find_spec("accelerate") is None:
        raise MissingError(
            "transformers loads a GGUF file with accelerate only", mend="pip install accelerate"
        )
    return target.model_class.from_pretrained(
        str(packed.parent), gguf_file=packed.name, dtype=torch.float32
    )


def _run(module: Any, pool: pooling.Pooling | None, feed: Feed) -> Arrays:
    inputs = arguments(feed)
    made = module(**inputs)
    if pool:
        embedding = _pool(made["last_hidden_state"], inputs["attention_mask"], pool)
        return {pooling.OUTPUT: embedding.numpy()}
    return {name: one.numpy() for name, one in made.items()}


def arguments(feed: Feed) -> dict[str, Any]:
    """A feed as keyword arguments: `past_key.0`, `past_key.1`, ... become the list `past_key`.

    Floats are float32, as the model is: those of a graph in 16 bits are widened.
    """
    made: dict[str, Any] = {}
    for name, array in feed.items():
        wide = np.float32 if array.dtype.kind in _FLOATS else None
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=wide))
        stem, _, index = name.rpartition(".")
        if index.isdigit():
            made.setdefault(stem, {})[int(index)] = tensor
        else:
            made[name] = tensor
    return {
        name: [one[index] for index in sorted(one)] if isinstance(one, dict) else one
        for name, one in made.items()
    }


def _pool(state: torch.Tensor, mask: torch.Tensor, pool: pooling.Pooling) -> torch.Tensor:
    """sentence-transformers' pooling, in torch's own words."""
    weights = mask.unsqueeze(-1).to(state.dtype)
    places = torch.arange(1, mask.shape[1] + 1).unsqueeze(-1) * weights
    total, count = (state * weights).sum(1), weights.sum(1).clamp(min=1e-9)
    last = places.argmax(1).squeeze(-1)
    modes = {
        "cls": lambda: state[:, 0],
        "max": lambda: state.masked_fill(weights == 0, -1e9).max(1).values,
        "mean": lambda: total / count,
        "mean_sqrt_len_tokens": lambda: total / count.sqrt(),
        "weightedmean": lambda: (state * places).sum(1) / places.sum(1).clamp(min=1e-9),
        "lasttoken": lambda: state[torch.arange(len(state)), last],
    }
    made = torch.cat([modes[mode]() for mode in pool.modes], -1)
    return torch.nn.functional.normalize(made, dim=-1) if pool.normalize else made
