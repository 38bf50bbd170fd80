"""Tiny models that see or hear."""

from tiny import IMAGE, SMALL, SPEECH, Tiny

MEDIA: tuple[Tiny, ...] = (
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
    Tiny(
        "Swinv2ForImageClassification",
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
    Tiny("Dinov2WithRegistersForImageClassification", "image-classification", IMAGE),
    Tiny("SiglipForImageClassification", "image-classification", {"vision_config": {**IMAGE}}),
    Tiny(
        "MobileNetV2ForImageClassification",
        "image-classification",
        {"image_size": 32, "depth_multiplier": 0.35},
    ),
    Tiny(
        "ChineseCLIPModel",
        "zero-shot-image-classification",
        {"text_config": {**SMALL}, "vision_config": {**IMAGE}, "projection_dim": 16},
    ),
    Tiny("SEWForCTC", "ctc", {**SPEECH, "squeeze_factor": 2}),
)
