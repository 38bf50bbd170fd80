"""The operator Attention of opset 23, as torch computes it and ONNX Runtime does."""

import math

import onnx_ir as ir
import torch

from ... import PassError
from .elementwise import Inputs, Tensor, given, there


def attention(node: ir.Node, inputs: Inputs) -> tuple[Tensor, ...]:
    """softmax(cap(scale q k^T) + mask) v, keys and values of groups of heads; the cache with it.

    Raises:
        PassError: it gives its scores, or has a cache that says how full it is (opset 24).
    """
    if there(inputs, 6) is not None or any(value.name for value in node.outputs[3:]):
        raise PassError(
            "recovery cannot train through this form of Attention",
            where=node.name or "",
            mend='leave `use = "recover"` out',
        )
    get, flat = node.attributes, given(inputs, 0).dim() == 3
    q = _heads(given(inputs, 0), get.get_int("q_num_heads", 0))
    k, v = (_heads(given(inputs, at), get.get_int("kv_num_heads", 0)) for at in (1, 2))
    past = there(inputs, 4), there(inputs, 5)
    k, v = (
        one if old is None else torch.cat([old, one], -2)
        for one, old in zip((k, v), past, strict=True)
    )
    scale = get.get_float("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    shared = q.shape[1] // k.shape[1]
    scores = scale * q @ k.repeat_interleave(shared, 1).transpose(-1, -2)
    cap = get.get_float("softcap", 0.0)
    scores = cap * torch.tanh(scores / cap) if cap else scores
    scores = _masked(scores, there(inputs, 3), bool(get.get_int("is_causal", 0)), past[0])
    made = _weights(scores) @ v.repeat_interleave(shared, 1)
    return (made.transpose(1, 2).flatten(2) if flat else made), k, v


def _heads(x: Tensor, heads: int) -> Tensor:
    """[batch, tokens, heads x width] as [batch, heads, tokens, width]."""
    return x if x.dim() == 4 else x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _masked(scores: Tensor, mask: Tensor | None, causal: bool, past: Tensor | None) -> Tensor:
    if causal:
        seen = torch.ones_like(scores[0, 0], dtype=torch.bool)
        seen = seen.tril(0 if past is None else past.shape[-2])
        scores = scores.masked_fill(~seen, -torch.inf)
    if mask is None:
        return scores
    hides = mask.dtype == torch.bool
    return scores.masked_fill(~mask, -torch.inf) if hides else scores + mask


def _weights(scores: Tensor) -> Tensor:
    """A softmax whose rows are 0 where all is hidden: ONNX Runtime's mean of nothing."""
    nothing = (scores <= torch.finfo(scores.dtype).min).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(nothing, 0.0), -1).masked_fill(nothing, 0.0)
