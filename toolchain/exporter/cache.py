"""What a model keeps of the past: heads and sizes of keys and values, layer by layer."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from ... import ExportError

#: Per layer: `key` and `value` -> (heads, head size).
Shapes = list[dict[str, tuple[int, int]]]


def causal_shapes(model: Any) -> Shapes | None:
    """Run a causal model on shapes alone, and read the cache it leaves.

    None where it keeps something else than keys and values (a recurrent state).
    """
    from transformers.cache_utils import DynamicCache

    with _shapes_only(model):
        ids = torch.ones((2, 3), dtype=torch.int64)
        try:
            made = model(
                input_ids=ids, attention_mask=ids, past_key_values=DynamicCache(), use_cache=True
            )
        except (TypeError, IndexError):  # no such argument, or layers of another kind
            return None
        return _shapes(getattr(made, "past_key_values", None))


def encoder_decoder_shapes(
    module: Any, inputs: dict[str, torch.Tensor]
) -> tuple[Shapes, Shapes, int, int]:
    """Self and cross attention's keys and values, the encoder's length and width."""
    with _shapes_only(module.model):
        state, cache = module.encode({name: torch.ones_like(one) for name, one in inputs.items()})
        own, cross = cache.self_attention_cache, cache.cross_attention_cache
        kept = _shapes(own), _shapes(cross)
    if kept[0] is None or kept[1] is None:
        raise ExportError(
            "its decoder keeps a state that is not keys and values",
            where=type(module.model).__name__,
            mend="--task feature-extraction exports the encoder alone",
        )
    return kept[0], kept[1], int(state.shape[1]), int(state.shape[2])


@contextmanager
def _shapes_only(model: Any) -> Generator[None]:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers.exporters.exporter_onnx import use_experts_implementation

    # grouped_mm, the usual choice, knows no float32 shapes
    with (
        use_experts_implementation(model, "batched_mm"),
        torch.no_grad(),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield


def _shapes(cache: Any) -> Shapes | None:
    found: Shapes = []
    for layer in getattr(cache, "layers", ()):
        tensors = {kind: getattr(layer, f"{kind}s", None) for kind in ("key", "value")}
        if any(one is None or one.dim() != 4 for one in tensors.values()):
            return None
        found.append(
            {
                kind: (int(one.shape[1]), int(one.shape[3]))
                for kind, one in tensors.items()
                if one is not None
            }
        )
    return found or None
