"""Tiny encoders of texts, at every task they do."""

from tiny import ENCODER_DECODER, SMALL, T5, Tiny

ENCODERS: tuple[Tiny, ...] = (
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
    Tiny("LlamaForSequenceClassification", "text-classification", SMALL),
    Tiny("GPT2ForTokenClassification", "token-classification", SMALL),
    Tiny("T5EncoderModel", "feature-extraction", T5),
    Tiny("BartForSequenceClassification", "text-classification", ENCODER_DECODER),
    Tiny("MegatronBertForMaskedLM", "fill-mask", SMALL),
    Tiny(
        "RemBertForMaskedLM",
        "fill-mask",
        {**SMALL, "input_embedding_size": 16, "output_embedding_size": 16},
    ),
    Tiny(
        "EsmForMaskedLM",
        "fill-mask",
        {**SMALL, "position_embedding_type": "rotary", "mask_token_id": 4},
    ),
    Tiny("BigBirdForMaskedLM", "fill-mask", {**SMALL, "attention_type": "original_full"}),
    Tiny("LongformerForMaskedLM", "fill-mask", {**SMALL, "attention_window": [4, 4]}),
    Tiny("EuroBertForMaskedLM", "fill-mask", SMALL),
    Tiny(
        "XLMForSequenceClassification",
        "text-classification",
        {
            "emb_dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "vocab_size": 99,
            "n_words": 99,
            "max_position_embeddings": 64,
        },
    ),
    Tiny("FNetForMaskedLM", "fill-mask", {**SMALL, "tpu_short_seq_length": 8}),
    Tiny("SplinterForQuestionAnswering", "question-answering", SMALL),
    Tiny("LayoutLMForTokenClassification", "token-classification", SMALL),
)
