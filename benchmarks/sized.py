"""Random models large enough to be timed, of the architectures that passes.py compares."""

from pathlib import Path
from typing import Any

from tiny import ENCODER_DECODER, SMALL, T5, Tiny

MEDIUM: dict[str, Any] = {
    **SMALL,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 768,
    "vocab_size": 2000,
    "max_position_embeddings": 512,
}
MEDIUM_PAIR: dict[str, Any] = {
    **ENCODER_DECODER,
    "d_model": 256,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 768,
    "decoder_ffn_dim": 768,
    "vocab_size": 2000,
    "max_position_embeddings": 512,
}
MODELS = (
    Tiny("BertForSequenceClassification", "text-classification", MEDIUM),
    Tiny("RobertaForMaskedLM", "fill-mask", {**MEDIUM, "pad_token_id": 1}),
    Tiny(
        "DistilBertForSequenceClassification",
        "text-classification",
        {"dim": 256, "n_layers": 4, "n_heads": 8, "hidden_dim": 768, "vocab_size": 2000},
    ),
    Tiny("ElectraForTokenClassification", "token-classification", MEDIUM),
    Tiny("MPNetForMaskedLM", "fill-mask", {**MEDIUM, "pad_token_id": 1}),
    Tiny(
        "DebertaV2ForSequenceClassification",
        "text-classification",
        {**MEDIUM, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    Tiny("ModernBertForMaskedLM", "fill-mask", {**MEDIUM, "local_attention": 32}),
    Tiny(
        "GPT2LMHeadModel",
        "text-generation",
        {"n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 2000, "n_positions": 512},
    ),
    Tiny("LlamaForCausalLM", "text-generation", MEDIUM),
    Tiny("Qwen3ForCausalLM", "text-generation", MEDIUM),
    Tiny("Gemma2ForCausalLM", "text-generation", {**MEDIUM, "sliding_window": 128}),
    Tiny("Phi3ForCausalLM", "text-generation", MEDIUM),
    Tiny("MistralForCausalLM", "text-generation", MEDIUM),
    Tiny(
        "T5ForConditionalGeneration",
        "text2text-generation",
        {
            **T5,
            **{"d_model": 256, "d_kv": 32, "d_ff": 768, "num_layers": 4, "num_heads": 8},
            "vocab_size": 2000,
        },
    ),
    Tiny("BartForConditionalGeneration", "text2text-generation", MEDIUM_PAIR),
    Tiny(
        "ViTForImageClassification",
        "image-classification",
        {**MEDIUM, "image_size": 128, "patch_size": 16},
    ),
)
LLAMA = Tiny(
    "LlamaForCausalLM",
    "text-generation",
    {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    },
)


def save(tiny: Tiny, folder: Path) -> None:
    """Write a random checkpoint whose norms and biases are random too: ones and zeros would
    fold away, as they do in no trained model.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, tiny.architecture)
    model = kind(kind.config_class(**tiny.options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
