"""Tiny random models of many architectures: what coverage.py exports."""

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
        model.save_pretrained(folder)


TINY: tuple[Tiny, ...] = (
    Tiny("BertModel", "feature-extraction", SMALL),
    Tiny("BertForMaskedLM", "fill-mask", SMALL),
    Tiny("BertForSequenceClassification", "text-classification", SMALL),
    Tiny("BertForTokenClassification", "token-classification", SMALL),
    Tiny("BertForQuestionAnswering", "question-answering", SMALL),
    Tiny("BertForMultipleChoice", "multiple-choice", SMALL),
    Tiny("BertForNextSentencePrediction", "next-sentence-prediction", SMALL),
    Tiny(
        "RobertaForMaskedLM",
        "fill-mask",
        {**SMALL, "pad_token_id": 1, "max_position_embeddings": 66},
    ),
    Tiny("XLMRobertaForTokenClassification", "token-classification", {**SMALL, "pad_token_id": 1}),
    Tiny("CamembertForSequenceClassification", "text-classification", {**SMALL, "pad_token_id": 1}),
    Tiny(
        "DistilBertForSequenceClassification",
        "text-classification",
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "vocab_size": 99,
            "max_position_embeddings": 64,
        },
    ),
    Tiny("AlbertForSequenceClassification", "text-classification", {**SMALL, "embedding_size": 16}),
    Tiny("ElectraForTokenClassification", "token-classification", {**SMALL, "embedding_size": 16}),
    Tiny(
        "DebertaForSequenceClassification",
        "text-classification",
        {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    Tiny(
        "DebertaV2ForSequenceClassification",
        "text-classification",
        {
            **SMALL,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
    ),
    Tiny("MPNetForMaskedLM", "fill-mask", {**SMALL, "pad_token_id": 1}),
    Tiny(
        "ModernBertForMaskedLM",
        "fill-mask",
        {**SMALL, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    Tiny(
        "MobileBertForSequenceClassification",
        "text-classification",
        {
            **SMALL,
            "embedding_size": 16,
            "intra_bottleneck_size": 16,
            "true_hidden_size": 16,
            "num_attention_heads": 2,
        },
    ),
    Tiny(
        "SqueezeBertForSequenceClassification",
        "text-classification",
        {**SMALL, "embedding_size": 32},
    ),
    Tiny(
        "ConvBertForSequenceClassification", "text-classification", {**SMALL, "embedding_size": 16}
    ),
    Tiny("RoFormerForMaskedLM", "fill-mask", {**SMALL, "embedding_size": 16}),
    Tiny(
        "FunnelForSequenceClassification",
        "text-classification",
        {
            "d_model": 32,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 48,
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
            "vocab_size": 99,
        },
    ),
    Tiny(
        "XLNetForSequenceClassification",
        "text-classification",
        {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 99},
    ),
    Tiny(
        "NystromformerForMaskedLM",
        "fill-mask",
        {**SMALL, "num_landmarks": 8, "segment_means_seq_len": 8},
    ),
    Tiny("GPT2LMHeadModel", "text-generation", SMALL),
    Tiny(
        "GPTNeoForCausalLM",
        "text-generation",
        {
            **SMALL,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
        },
    ),
    Tiny("GPTNeoXForCausalLM", "text-generation", SMALL),
    Tiny("GPTJForCausalLM", "text-generation", {**SMALL, "rotary_dim": 4}),
    Tiny("OPTForCausalLM", "text-generation", {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    Tiny(
        "BloomForCausalLM",
        "text-generation",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99},
    ),
    Tiny(
        "FalconForCausalLM",
        "text-generation",
        {**{k: v for k, v in SMALL.items() if k != "head_dim"}, "new_decoder_architecture": True},
    ),
    Tiny(
        "MptForCausalLM",
        "text-generation",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "vocab_size": 99},
    ),
    Tiny("LlamaForCausalLM", "text-generation", SMALL),
    Tiny("MistralForCausalLM", "text-generation", {**SMALL, "sliding_window": 8}),
    Tiny("Qwen2ForCausalLM", "text-generation", SMALL),
    Tiny("Qwen3ForCausalLM", "text-generation", SMALL),
    Tiny("Qwen3MoeForCausalLM", "text-generation", MOE),
    Tiny("MixtralForCausalLM", "text-generation", MOE),
    Tiny("GemmaForCausalLM", "text-generation", SMALL),
    Tiny(
        "Gemma2ForCausalLM",
        "text-generation",
        {**SMALL, "sliding_window": 8, "query_pre_attn_scalar": 8},
    ),
    Tiny(
        "Gemma3ForCausalLM",
        "text-generation",
        {**SMALL, "sliding_window": 8, "query_pre_attn_scalar": 8},
    ),
    Tiny("PhiForCausalLM", "text-generation", SMALL),
    Tiny("Phi3ForCausalLM", "text-generation", SMALL),
    Tiny("StableLmForCausalLM", "text-generation", SMALL),
    Tiny("CohereForCausalLM", "text-generation", SMALL),
    Tiny("Olmo2ForCausalLM", "text-generation", SMALL),
    Tiny("Starcoder2ForCausalLM", "text-generation", SMALL),
    Tiny("SmolLM3ForCausalLM", "text-generation", SMALL),
    Tiny("GraniteForCausalLM", "text-generation", SMALL),
    Tiny(
        "DeepseekV3ForCausalLM",
        "text-generation",
        {
            **MOE,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "num_key_value_heads": 4,
            "first_k_dense_replace": 1,
        },
    ),
    Tiny("MambaForCausalLM", "text-generation", {**SMALL, "state_size": 8}),
    Tiny("LlamaForSequenceClassification", "text-classification", SMALL),
    Tiny("GPT2ForTokenClassification", "token-classification", SMALL),
    Tiny("T5ForConditionalGeneration", "text2text-generation", T5),
    Tiny(
        "MT5ForConditionalGeneration",
        "text2text-generation",
        {**T5, "feed_forward_proj": "gated-gelu"},
    ),
    Tiny("BartForConditionalGeneration", "text2text-generation", ENCODER_DECODER),
    Tiny("MBartForConditionalGeneration", "text2text-generation", ENCODER_DECODER),
    Tiny("MarianMTModel", "text2text-generation", ENCODER_DECODER),
    Tiny("PegasusForConditionalGeneration", "text2text-generation", ENCODER_DECODER),
    Tiny("M2M100ForConditionalGeneration", "text2text-generation", ENCODER_DECODER),
    Tiny("BlenderbotSmallForConditionalGeneration", "text2text-generation", ENCODER_DECODER),
    Tiny(
        "LEDForConditionalGeneration",
        "text2text-generation",
        {
            **ENCODER_DECODER,
            "attention_window": 4,
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 64,
        },
    ),
    Tiny("T5EncoderModel", "feature-extraction", T5),
    Tiny("BartForSequenceClassification", "text-classification", ENCODER_DECODER),
    Tiny("ViTForImageClassification", "image-classification", IMAGE),
    Tiny("DeiTForImageClassification", "image-classification", IMAGE),
    Tiny(
        "BeitForImageClassification",
        "image-classification",
        {**IMAGE, "use_relative_position_bias": True},
    ),
    Tiny("Dinov2ForImageClassification", "image-classification", IMAGE),
    Tiny(
        "SwinForImageClassification",
        "image-classification",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        },
    ),
    Tiny(
        "ConvNextForImageClassification",
        "image-classification",
        {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32},
    ),
    Tiny(
        "ResNetForImageClassification",
        "image-classification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "image_size": 32},
    ),
    Tiny(
        "MobileViTForImageClassification",
        "image-classification",
        {
            "image_size": 32,
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 32],
            "num_attention_heads": 2,
        },
    ),
    Tiny(
        "SegformerForImageClassification",
        "image-classification",
        {
            "image_size": 32,
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        },
    ),
    Tiny(
        "CLIPModel",
        "zero-shot-image-classification",
        {"text_config": {**SMALL}, "vision_config": {**IMAGE}, "projection_dim": 16},
    ),
    Tiny(
        "SiglipModel",
        "zero-shot-image-classification",
        {"text_config": {**SMALL}, "vision_config": {**IMAGE}},
    ),
    Tiny(
        "WhisperForConditionalGeneration",
        "automatic-speech-recognition",
        {
            **ENCODER_DECODER,
            "num_mel_bins": 8,
            "max_source_positions": 30,
            "max_target_positions": 40,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
    ),
    Tiny("Wav2Vec2ForCTC", "ctc", SPEECH),
    Tiny("HubertForSequenceClassification", "audio-classification", SPEECH),
    Tiny("WavLMForCTC", "ctc", SPEECH),
    Tiny("Wav2Vec2BertForCTC", "ctc", {**SMALL, "feature_projection_input_dim": 16}),
    Tiny(
        "ASTForAudioClassification",
        "audio-classification",
        {
            **SMALL,
            "patch_size": 8,
            "max_length": 32,
            "num_mel_bins": 16,
            "frequency_stride": 8,
            "time_stride": 8,
        },
    ),
)
