"""What is traced: modules whose inputs and outputs are flat, named tensors.

The same modules, around the same transformers model with its real weights, are the reference
that the graphs are compared with; so a name means the same tensor on both sides.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]


class Plain(nn.Module):
    """A model's forward, with its top-level tensors as outputs."""

    def __init__(self, model: nn.Module, flags: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.flags = flags

    def forward(self, **inputs: torch.Tensor) -> Tensors:
        """Arguments as the model's forward names them."""
        made = self.model(**fitting(self.model, inputs), **self.flags, return_dict=True)
        return {name: one for name, one in made.items() if isinstance(one, torch.Tensor)}


def fitting(model: Any, inputs: Tensors) -> Tensors:
    """Floats in the model's dtype: example pixels and sounds are float32."""
    return {
        name: one.to(model.dtype) if one.is_floating_point() else one
        for name, one in inputs.items()
    }


class CausalLM(nn.Module):
    """One step of a causal language model: prefill, chunked prefill and decode are the same graph.

    Keys and values [batch, heads, past, head size] go in per layer and come out with this step's
    tokens appended; an empty past is a past of length 0.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        past_key: Sequence[torch.Tensor],
        past_value: Sequence[torch.Tensor],
        **inputs: torch.Tensor,
    ) -> Tensors:
        """`input_ids` [batch, sequence], `attention_mask` [batch, past + sequence]."""
        cache = filled(past_key, past_value)
        made = self.model(**inputs, past_key_values=cache, use_cache=True, return_dict=True)
        return {"logits": made.logits, **layers("present", made.past_key_values)}


class Encoder(nn.Module):
    """The encoder of an encoder-decoder, and what its decoder's cross attention keeps of it.

    The decoder runs one token on an empty cache; only the projections of the encoder's states
    that it leaves in the cross-attention cache are kept, the rest is dead and pruned.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> Tensors:
        """The encoder's own arguments, e.g. `input_ids` and `attention_mask` [batch, source]."""
        state, cache = self.encode(inputs)
        return {"last_hidden_state": state, **layers("cross", cache.cross_attention_cache)}

    def encode(self, inputs: Tensors) -> tuple[torch.Tensor, Any]:
        """The encoder's states, and the cache after one token."""
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        given = fitting(self.model, inputs)
        encoded = self.model.get_encoder()(**given, return_dict=True)
        state = encoded.last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.model(
            encoder_outputs=encoded,
            decoder_input_ids=torch.zeros((state.shape[0], 1), dtype=torch.int64),
            past_key_values=cache,
            use_cache=True,
            **_mask(inputs.get("attention_mask")),
        )
        return state, cache


class Decoder(nn.Module):
    """One step of a decoder on the keys and values its encoder gave."""

    def __init__(self, model: Any, width: int) -> None:
        super().__init__()
        self.model = model
        self.width = width

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key: Sequence[torch.Tensor],
        past_value: Sequence[torch.Tensor],
        cross_key: Sequence[torch.Tensor],
        cross_value: Sequence[torch.Tensor],
        encoder_attention_mask: torch.Tensor | None = None,
    ) -> Tensors:
        """`input_ids` [batch, sequence]; the encoder's states themselves are not needed again."""
        from transformers.cache_utils import EncoderDecoderCache
        from transformers.modeling_outputs import BaseModelOutput

        cache = EncoderDecoderCache(filled(past_key, past_value), filled(cross_key, cross_value))
        cache.is_updated = dict.fromkeys(range(len(cross_key)), True)
        batch, _, source, _ = cross_key[0].shape
        unused = cross_key[0].new_zeros((batch, source, self.width))
        made = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=unused),
            decoder_input_ids=input_ids,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
            **_mask(encoder_attention_mask),
        )
        return {"logits": made.logits, **layers("present", cache.self_attention_cache)}


def _mask(mask: torch.Tensor | None) -> Tensors:
    return {} if mask is None else {"attention_mask": mask}


def filled(keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> Any:
    """A cache that holds these keys and values, every layer at full length.

    A sliding window is then the mask's work alone, so that one graph serves any length.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache()
    for key, value in zip(keys, values, strict=True):
        layer = DynamicLayer()
        layer.dtype, layer.device = key.dtype, key.device
        layer.keys, layer.values, layer.is_initialized = key, value, True
        cache.layers.append(layer)
    return cache


def layers(kind: str, cache: Any) -> Tensors:
    """The cache's tensors as `<kind>_key.N` and `<kind>_value.N`."""
    found: Tensors = {}
    for index, layer in enumerate(cache.layers):
        found[f"{kind}_key.{index}"] = layer.keys
        found[f"{kind}_value.{index}"] = layer.values
    return found
