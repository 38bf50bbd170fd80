"""A tiny random model, and the sizes that many architectures share."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER_DECODER: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 99,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
IMAGE: dict[str, Any] = {**SMALL, "image_size": 32, "patch_size": 8}
SPEECH: dict[str, Any] = {
    **SMALL,
    "conv_dim": (16, 16),
    "conv_stride": (4, 4),
    "conv_kernel": (8, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
MOE: dict[str, Any] = {
    **SMALL,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}


@dataclass(frozen=True)
class Tiny:
    """One architecture at one task."""

    architecture: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write a random checkpoint, seeded, as `save_pretrained` would."""
        import torch
        import transformers

        torch.manual_seed(0)
        model_class = getattr(transformers, self.architecture)
        config = model_class.config_class(**self.options)
        model = model_class(config).eval()
        with torch.no_grad():  # no weight is left at zero or one: nothing then hides behind it
            for one in model.parameters():
                one.add_(torch.randn_like(one) * 0.02)
            for module in model.modules():  # but padding's row, which from_pretrained zeroes
                if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx] = 0
        model.save_pretrained(folder)
