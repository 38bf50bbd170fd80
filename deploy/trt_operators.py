"""Operators that TensorRT's parser has no import for, with what to do instead."""

_QDQ = "quantise statically, with QuantizeLinear and DequantizeLinear"
_LOGIC = "use And, Or, Xor and Not on booleans"
_SEQUENCE = "use tensors"
_RANDOM = "draw outside the graph and pass it in"

#: Of the standard operators; what is rare in transformers is left to the parser itself.
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
