"""Triton's Python backend: the engine's outputs and TEXT to ANSWER, a JSON object a text."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from llmdeploy.deploy.answers import answer, problem_type  # noqa: E402
from llmdeploy.deploy.text import Encoder  # noqa: E402


class TritonPythonModel:
    """What Triton calls: the class and its methods have these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer and io.json that lie beside this file."""
        self.encoder = Encoder(HERE)
        self.max_length = int((HERE / "max_length").read_text())
        self.problem = problem_type(HERE)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request: ANSWER of each of its texts."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        try:
            given: Any = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            texts = [text.decode("utf-8", "replace") for text in given.reshape(-1)]
            answers = np.array(self._answers(request, texts), dtype=object).reshape(-1, 1)
            tensors = [pb_utils.Tensor("ANSWER", answers)]
            return pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _answers(self, request: Any, texts: list[str]) -> list[bytes]:
        signature = self.encoder.signature
        outputs = {
            tensor.name: pb_utils.get_input_tensor_by_name(request, tensor.name).as_numpy()
            for tensor in signature.outputs
        }
        answers: list[bytes] = []
        encodings = self.encoder.encodings(texts, max_length=self.max_length)
        for row, encoding in enumerate(encodings):
            one = {
                tensor.name: self.encoder.unpad(tensor, outputs[tensor.name][row], encoding)
                for tensor in signature.outputs
            }
            told = answer(signature, one, encoding, problem=self.problem)
            answers.append(json.dumps(told, ensure_ascii=False).encode())
        return answers
