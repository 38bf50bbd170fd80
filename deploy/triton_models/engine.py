"""Triton's Python backend: an ONNX Runtime engine, for servers without Triton's own backend."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from llmdeploy.deploy.ort_session import Settings, open_session  # noqa: E402


class TritonPythonModel:
    """What Triton calls: the class and its methods have these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine that lies beside this file, as its engine.json says."""
        settings = Settings.load(HERE)
        self.session: Any = open_session(HERE / settings.file, settings)
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.outputs = [each.name for each in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; requests of one shape are run together."""
        responses: list[Any] = [None] * len(requests)
        feeds = [self._feed(request) for request in requests]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for index, feed in enumerate(feeds):
            groups.setdefault(tuple(array.shape[1:] for array in feed.values()), []).append(index)
        for members in groups.values():
            for index, response in zip(
                members, self._run([feeds[i] for i in members]), strict=True
            ):
                responses[index] = response
        return responses

    def finalize(self) -> None:
        """Let go of the engine."""
        self.session = None

    def _feed(self, request: Any) -> dict[str, Any]:
        return {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in self.inputs
        }

    def _run(self, feeds: list[dict[str, Any]]) -> list[Any]:
        try:
            together = {name: np.concatenate([f[name] for f in feeds]) for name in self.inputs}
            results: Any = self.session.run(self.outputs, together)
        except Exception as error:
            failure = pb_utils.TritonError(" ".join(str(error).split())[:300])
            return [pb_utils.InferenceResponse(error=failure) for _ in feeds]
        responses: list[Any] = []
        start = 0
        for feed in feeds:
            rows = slice(start, start := start + len(feed[self.inputs[0]]))
            named = zip(self.outputs, results, strict=True)
            tensors = [pb_utils.Tensor(name, array[rows]) for name, array in named]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses
