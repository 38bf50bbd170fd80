"""What a model keeps of the past: heads and sizes of keys and values, layer by layer."""

from typing import Any

import torch

from .. import ExportError

#: Per layer: `key` and `value` -> (heads, head size).
Shapes = list[dict[str, tuple[int, int]]]


def causal_shapes(model: Any) -> Shapes:
    """Run a causal model on shapes alone, and read the cache it leaves.

    Raises:
        ExportError: it keeps something else than keys and values (a recurrent state).
    """
    from transformers.cache_utils import DynamicCache

    with _shapes_only():
        ids = torch.ones((2, 3), dtype=torch.int64)
        made = model(
            input_ids=ids, attention_mask=ids, past_key_values=DynamicCache(), use_cache=True
        )
        return _shapes(model, made.past_key_values)


def encoder_decoder_shapes(
    module: Any, inputs: dict[str, torch.Tensor]
) -> tuple[Shapes, Shapes, int, int]:
    """Self and cross attention's keys and values, the encoder's length and width."""
    with _shapes_only():
        state, cache = module.encode({name: torch.ones_like(one) for name, one in inputs.items()})
        own, cross = cache.self_attention_cache, cache.cross_attention_cache
        shapes = _shapes(module.model, own), _shapes(module.model, cross)
        return *shapes, int(state.shape[1]), int(state.shape[2])


def _shapes_only() -> Any:
    from contextlib import ExitStack

    from torch._subclasses.fake_tensor import FakeTensorMode

    stack = ExitStack()
    stack.enter_context(torch.no_grad())
    stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
    return stack


def _shapes(model: Any, cache: Any) -> Shapes:
    return [_layer(model, index, layer) for index, layer in enumerate(cache.layers)]


def _layer(model: Any, index: int, layer: Any) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for kind in ("key", "value"):
        tensor = getattr(layer, f"{kind}s", None)
        if tensor is None or tensor.dim() != 4:
            raise ExportError(
                f"layer {index} keeps a state that is not keys and values",
                where=type(model).__name__,
                mend="--task feature-extraction exports it without a cache",
            )
        found[kind] = (int(tensor.shape[1]), int(tensor.shape[3]))
    return found
