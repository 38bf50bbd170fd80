"""ONNX's reference, with normalisations of 16 bits as the standard has them: in float32."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_layer_normalization, op_rms_normalization

Array = NDArray[np.generic]


def _wide(array: Array) -> Array:
    """A float of 16 bits as float32; its squares are beyond what 16 bits hold."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


class LayerNormalization(op_layer_normalization.LayerNormalization):
    """With the stash type that the standard has for what is between."""

    def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Array, scale: Array, bias: Array | None = None, **attributes: object
    ) -> tuple[Array, ...]:
        wide = [_wide(x), _wide(scale), None if bias is None else _wide(bias)]
        made, *rest = super()._run(*wide, **attributes)
        return made.astype(scale.dtype), *rest


class RMSNormalization(op_rms_normalization.RMSNormalization):
    """With the stash type that the standard has for what is between."""

    def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Array, scale: Array, **attributes: object
    ) -> tuple[Array, ...]:
        (made,) = super()._run(_wide(x), _wide(scale), **attributes)
        return (made.astype(scale.dtype),)


def evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """The reference that runs a small model."""
    return ReferenceEvaluator(model, new_ops=[LayerNormalization, RMSNormalization])
