"""An encoder's and a decoder's engine as one: the encoder runs once, the decoder once a token."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import BundleError, ConfigError
from .rules import start_ids
from .signature import Signature
from .text import Arrays

ENCODER, DECODER = "encoder", "decoder"
PAST, PRESENT = "past_", "present_"


class Pair:
    """The two engines' step, as `generate.decode` drives it: start tokens in, logits out."""

    def __init__(
        self, engines: Mapping[str, Any], signatures: Mapping[str, Signature], assets: Path
    ) -> None:
        self._engines = engines
        self._signatures = signatures
        self._where = assets
        self.start = start_ids(assets)
        self._kept: dict[str, Any] = {}
        self.length = 0

    @property
    def limit(self) -> float:
        """The most tokens the decoder takes."""
        bounds = self._signatures[DECODER].dims.get("sequence")
        return bounds.max if bounds and bounds.max else float("inf")

    def prefill(self, feed: Arrays) -> NDArray[Any]:
        """Run the encoder on its arrays, and the decoder on the start tokens, one at a time.

        Gives logits [rows, vocabulary] of the first token.
        """
        encoder, decoder = self._signatures[ENCODER], self._signatures[DECODER]
        names = [tensor.name for tensor in encoder.outputs]
        taken = {tensor.name for tensor in decoder.inputs}
        wanted = [name for name in names if name in taken]
        values = {name: _value(array) for name, array in feed.items()}
        self._kept = self._run(ENCODER, wanted, values)
        rows = len(next(iter(feed.values())))
        for tensor in decoder.inputs:
            if tensor.role == "encoder_attention_mask":
                mask = feed[_mask(encoder)]
                self._kept[tensor.name] = _value(mask.astype(tensor.dtype))
            elif tensor.role.startswith(PAST):
                shape = [dim if isinstance(dim, int) else 0 for dim in tensor.shape]
                self._kept[tensor.name] = _value(np.zeros([rows, *shape[1:]], tensor.dtype))
        self.length = 0
        *others, last = self.start
        for token in others:
            self.step([token] * rows)
        return self.step([last] * rows)

    def step(self, tokens: Sequence[int]) -> NDArray[Any]:
        """Run one more token a text; logits [texts, vocabulary] after it."""
        decoder = self._signatures[DECODER]
        ids = next(tensor for tensor in decoder.inputs if tensor.role == "input_ids")
        feed = {**self._kept, ids.name: _value(np.array(tokens, dtype=ids.dtype)[:, None])}
        outputs = self._run(DECODER, [tensor.name for tensor in decoder.outputs], feed)
        for tensor in decoder.inputs:
            if tensor.role.startswith(PAST):
                self._kept[tensor.name] = outputs[PRESENT + tensor.role.removeprefix(PAST)]
        self.length += 1
        return outputs["logits"].numpy()[:, -1]

    def _run(self, name: str, wanted: list[str], feed: dict[str, Any]) -> dict[str, Any]:
        roles = {tensor.name: tensor.role for tensor in self._signatures[name].outputs}
        try:
            values = self._engines[name].run_with_ort_values(wanted, feed)
        except Exception as error:
            what = f"the {name} failed: {' '.join(str(error).split())[:200]}"
            raise BundleError(what, where=self._where) from error
        return {roles[each]: value for each, value in zip(wanted, values, strict=True)}


def _mask(encoder: Signature) -> str:
    mask = encoder.input("attention_mask")
    if mask is None:
        raise ConfigError("the encoder takes no attention_mask", mend="export it again")
    return mask.name


def _value(array: NDArray[Any]) -> Any:
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
