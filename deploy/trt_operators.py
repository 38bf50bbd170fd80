"""Operators that TensorRT's parser has no import for, with what to do instead."""

#: The least and the greatest that the parser reads.
OPSETS = (9, 25)

_QDQ = "quantise statically, with QuantizeLinear and DequantizeLinear"
_LOGIC = "use And, Or, Xor and Not on booleans"
_SEQUENCE = "use tensors"
_RANDOM = "draw outside the graph and pass it in"
_STRINGS = "tokenise outside the graph"
_LOSS = "export without labels"
_IMAGE = "prepare images outside the graph"
_OPTIONAL = "export with the input always given"
_SPECTRUM = "prepare the spectrum outside the graph, or write it as a MatMul"
_INDICES = "do it outside the graph, or multiply by a mask"

#: Standard operators that have no form the parser takes (`tests/deploy/test_trt_operators.py`).
UNSUPPORTED = {
    "BitwiseAnd": _LOGIC,
    "BitwiseOr": _LOGIC,
    "BitwiseXor": _LOGIC,
    "BitwiseNot": _LOGIC,
    "BitShift": "multiply or divide by a power of two",
    "DynamicQuantizeLinear": _QDQ,
    "MatMulInteger": _QDQ,
    "ConvInteger": _QDQ,
    "QLinearMatMul": _QDQ,
    "QLinearConv": _QDQ,
    "SplitToSequence": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceEmpty": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceAt": _SEQUENCE,
    "SequenceLength": _SEQUENCE,
    "SequenceMap": _SEQUENCE,
    "ConcatFromSequence": _SEQUENCE,
    "Unique": "do it outside the graph",
    "Compress": "use Gather with known indices",
    "Multinomial": _RANDOM,
    "Bernoulli": _RANDOM,
    "SwiGLU": "write it as Mul and Swish",
    "CumProd": "take Exp of the CumSum of Log",
    "BitCast": "keep the dtype",
    "Det": "do it outside the graph",
    "DFT": _SPECTRUM,
    "MelWeightMatrix": _SPECTRUM,
    "AffineGrid": _IMAGE,
    "CenterCropPad": _IMAGE,
    "Col2Im": _IMAGE,
    "ImageDecoder": _IMAGE,
    "MaxUnpool": _IMAGE,
    "NegativeLogLikelihoodLoss": _LOSS,
    "SoftmaxCrossEntropyLoss": _LOSS,
    "OptionalGetElement": _OPTIONAL,
    "OptionalHasElement": _OPTIONAL,
    "RegexFullMatch": _STRINGS,
    "StringConcat": _STRINGS,
    "StringNormalizer": _STRINGS,
    "StringSplit": _STRINGS,
    "TfIdfVectorizer": _STRINGS,
}

#: Standard operators imported as a plugin, or without a kernel, that TensorRT-RTX does not carry.
WITHOUT_PLUGIN = {
    "NonZero": _INDICES,
    "NonMaxSuppression": _INDICES,
    "RoiAlign": _IMAGE,
    "DeformConv": _IMAGE,
    "CausalConvWithState": "write it as Concat and Conv",
    "LinearAttention": "write it as MatMul and a Scan",
}

#: Operators of com.microsoft that are imported all the same.
CONTRIB = frozenset(
    {
        "GroupQueryAttention",
        "MultiHeadAttention",
        "RotaryEmbedding",
        "SimplifiedLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "MatMulNBits",
        "QMoE",
    }
)
