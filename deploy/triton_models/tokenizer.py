"""Triton's Python backend: TEXT to the arrays that the engine takes.

The texts of all requests that Triton hands over at once are padded to one length, so that the
engine's own batcher can put them together again.
"""

import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from llmdeploy.deploy.text import Encoder  # noqa: E402


class TritonPythonModel:
    """What Triton calls: the class and its methods have these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer that lies beside this file."""
        self.encoder = Encoder(HERE)
        self.max_length = int((HERE / "max_length").read_text())

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request: the arrays of its texts."""
        texts: list[list[str]] = []
        for request in requests:
            given: Any = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            texts.append([text.decode("utf-8", "replace") for text in given.reshape(-1)])
        try:
            together = [text for part in texts for text in part]
            feed = self.encoder.encode(together, max_length=self.max_length)
        except Exception as error:
            failure = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        responses: list[Any] = []
        start = 0
        for part in texts:
            rows = slice(start, start := start + len(part))
            tensors = [pb_utils.Tensor(name, array[rows]) for name, array in feed.items()]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses
