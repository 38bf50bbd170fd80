"""What TensorRT's engine inspector says of an engine that was loaded on a GPU.

Format: TensorRT 11 developer guide, "Engine Inspector" (JSON of a detailed engine); TensorRT 10
writes dtype and layout in one field, 11 in two.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import BuildError

#: How the inspector spells a dtype, among whatever else stands in the field.
KINDS = ("INT8", "FP8", "FP4", "INT4", "BF16", "FP16", "FP32", "INT32", "INT64", "BOOL")
SPELLINGS = {"BFLOAT16": "BF16", "HALF": "FP16", "FLOAT": "FP32"}
QUANTIZED = frozenset({"INT8", "FP8", "FP4", "INT4"})


@dataclass(frozen=True)
class Inspected:
    """Layers by the narrowest dtype they read, and those that read a quantised one."""

    layers: int
    kinds: Mapping[str, int]
    quantized: tuple[str, ...]


def inspect(text: str) -> Inspected:
    """Read the inspector's JSON.

    Raises:
        BuildError: it is not what an inspector of TensorRT 10 or 11 writes.
    """
    try:
        layers = json.loads(text)["Layers"]
        named = [(str(layer["Name"]), _narrowest(layer)) for layer in layers]
    except (ValueError, KeyError, TypeError) as error:
        mend = "build with detailed profiling verbosity"
        raise BuildError("the engine inspector's report cannot be read", mend=mend) from error
    kinds = Counter(kind for _, kind in named)
    return Inspected(len(named), dict(kinds), tuple(n for n, kind in named if kind in QUANTIZED))


def _narrowest(layer: Mapping[str, Any]) -> str:
    found = [_kind(tensor) for tensor in layer["Inputs"]]
    return min((kind for kind in found if kind), key=KINDS.index, default="none")


def _kind(tensor: Mapping[str, Any]) -> str:
    stated = str(tensor.get("DataType", tensor.get("Format/Datatype", ""))).upper()
    for spelling, kind in SPELLINGS.items():
        stated = stated.replace(spelling, kind)
    return next((kind for kind in KINDS if kind in stated), "")
