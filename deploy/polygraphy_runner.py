"""Any engine as a Polygraphy runner, for Polygraphy's own tools and comparisons."""

import time
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.datatype import DataType

from .backend import Run
from .signature import Signature


class EngineRunner(BaseRunner):
    """Runs what a backend's `runner` opens; inputs are told by the graph's signature."""

    def __init__(
        self, opened: AbstractContextManager[Run], signature: Signature, name: str
    ) -> None:
        super().__init__(name=name, prefix=name)
        self._opened = opened
        self._signature = signature
        self._run: Run | None = None

    def activate_impl(self) -> None:
        """Open the engine."""
        self._run = self._opened.__enter__()

    def deactivate_impl(self) -> None:
        """Close it."""
        self._run = None
        self._opened.__exit__(None, None, None)

    def get_input_metadata_impl(self) -> Any:
        """Names, dtypes and shapes; a named dimension is None, as Polygraphy writes it."""
        metadata = TensorMetadata()
        for each in self._signature.inputs:
            shape = [size if isinstance(size, int) else None for size in each.shape]
            metadata.add(each.name, dtype=DataType.from_dtype(np.dtype(each.dtype)), shape=shape)
        return metadata

    def infer_impl(self, feed_dict: dict[str, Any]) -> dict[str, Any]:
        """One execution."""
        assert self._run is not None
        started = time.perf_counter()
        outputs = self._run(feed_dict)
        self.inference_time = time.perf_counter() - started
        return outputs
