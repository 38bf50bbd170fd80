"""Tiny encoder-decoders: of texts, and of speech."""

from tiny import ENCODER_DECODER, SMALL, T5, Tiny

PAIRS: tuple[Tiny, ...] = (
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
    Tiny("PLBartForConditionalGeneration", "text2text-generation", ENCODER_DECODER),
    Tiny("LongT5ForConditionalGeneration", "text2text-generation", {**T5, "local_radius": 4}),
    Tiny("UMT5ForConditionalGeneration", "text2text-generation", T5),
    Tiny(
        "ProphetNetForConditionalGeneration",
        "text2text-generation",
        {
            "hidden_size": 32,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "vocab_size": 99,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 2,
        },
    ),
    Tiny(
        "Speech2TextForConditionalGeneration",
        "automatic-speech-recognition",
        {
            **ENCODER_DECODER,
            "input_feat_per_channel": 8,
            "conv_channels": 16,
            "num_conv_layers": 2,
            "conv_kernel_sizes": (3, 3),
            "max_source_positions": 60,
            "max_target_positions": 40,
        },
    ),
    Tiny(
        "MoonshineForConditionalGeneration",
        "automatic-speech-recognition",
        {
            **{
                k: v
                for k, v in SMALL.items()
                if k not in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
            },
            "encoder_num_hidden_layers": 2,
            "decoder_num_hidden_layers": 2,
            "encoder_num_attention_heads": 4,
            "decoder_num_attention_heads": 4,
            "decoder_start_token_id": 1,
        },
    ),
)
