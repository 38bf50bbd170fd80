"""Stages of one engine in one process: they run one after the other as the whole does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .ort_session import KEEP, fitting


class Pipeline:
    """What is asked of an ONNX Runtime session, by several: each takes what those before gave."""

    def __init__(self, stages: Sequence[Any]) -> None:
        self._stages = [
            (stage, _names(stage.get_inputs()), _names(stage.get_outputs())) for stage in stages
        ]

    def get_overridable_initializers(self) -> list[Any]:
        """What a feed may hold and need not."""
        return [each for stage, *_ in self._stages for each in stage.get_overridable_initializers()]

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """The named outputs as arrays."""
        return self._through(names, feed, lambda stage: stage.run)

    def run_with_ort_values(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """The same with ONNX Runtime's own values in and out."""
        return self._through(names, feed, lambda stage: stage.run_with_ort_values)

    def traced(self, feed: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What each stage takes and gives for arrays."""
        known, found = dict(feed), list[tuple[dict[str, Any], dict[str, Any]]]()
        for stage, inputs, outputs in self._stages:
            taken = {name: known[name] for name in inputs}
            given = dict(zip(outputs, stage.run(outputs, taken), strict=True))
            known |= given
            found.append((taken, given))
        return found

    def _through(
        self, names: Sequence[str], feed: Mapping[str, Any], run: Callable[[Any], Any]
    ) -> list[Any]:
        known = dict(feed)
        asked = {name: feed[name] for name in (KEEP,) if name in feed}
        for stage, inputs, outputs in self._stages:
            taken = {name: known[name] for name in inputs} | asked
            results = run(stage)(outputs, fitting(stage, taken))
            known |= dict(zip(outputs, results, strict=True))
        return [known[name] for name in names]


def _names(tensors: Sequence[Any]) -> list[str]:
    return [tensor.name for tensor in tensors]
