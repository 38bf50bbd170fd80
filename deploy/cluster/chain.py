"""A model in pipeline stages: each an actor of its own, on a node of its own where there are some.

What stages give stays in the object store of their node, and only references travel: a stage
reads from the one before it, and finds its own cache where it left it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray.util import placement_group, remove_placement_group  # pyright: ignore[reportMissingImports]
from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
    PlacementGroupSchedulingStrategy,
)

from ... import BuildError
from ..runtime import open_engine
from .loss import again
from .parcel import Parcel, received

#: Seconds to wait for room on the nodes.
ROOM = 120.0


class Stage:
    """One stage's engine: named arrays or references in, references to its outputs out."""

    def __init__(self, parcel: Parcel, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="llmdeploy-")
        self._engine = open_engine(received(parcel, Path(self._folder.name)).model, threads)
        self._inputs = [each.name for each in self._engine.get_inputs()]
        self._defaults = [each.name for each in self._engine.get_overridable_initializers()]
        self._outputs = [each.name for each in self._engine.get_outputs()]

    def names(self) -> tuple[list[str], list[str]]:
        """What it takes, and what it need not be given."""
        return self._inputs, self._defaults

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """References to what it gives for `feed`."""
        arrays = {
            name: ray.get(value) if isinstance(value, ray.ObjectRef) else value
            for name, value in feed.items()
        }
        results = self._engine.run(self._outputs, arrays)
        return {name: ray.put(array) for name, array in zip(self._outputs, results, strict=True)}


class Kept:
    """An array that lies where it was made."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def numpy(self) -> Any:
        """The array, here."""
        return ray.get(self.reference)


class Chain:
    """Stages that run one after the other as one ONNX Runtime session does."""

    def __init__(self, parcels: Sequence[Parcel], threads: int) -> None:
        cores = max(threads, 1)
        self._group = placement_group([{"CPU": cores}] * len(parcels), strategy="SPREAD")
        if not self._group.wait(ROOM):
            remove_placement_group(self._group)
            what = f"no node has room for {len(parcels)} stages of {cores} cores"
            raise BuildError(what, mend="add nodes, or ask for fewer stages or threads")
        self._stages: list[Any] = [
            ray.remote(Stage)
            .options(
                num_cpus=cores,
                max_restarts=-1,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, index),
            )
            .remote(parcel, threads)
            for index, parcel in enumerate(parcels)
        ]
        self._names: list[tuple[list[str], list[str]]] = ray.get(
            [stage.names.remote() for stage in self._stages]
        )

    def get_overridable_initializers(self) -> list[Any]:
        """What a feed may hold and need not; of each the name."""
        return [SimpleNamespace(name=name) for _, defaults in self._names for name in defaults]

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """The named outputs; again from the first stage where an actor or its results are lost."""
        return again(lambda: ray.get([self._through(feed)[name] for name in names]))

    def run_with_ort_values(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Kept]:
        """The same with ONNX Runtime's values in and references out: a cache stays in its stage."""
        plain = {
            name: value.reference if isinstance(value, Kept) else value.numpy()
            for name, value in feed.items()
        }
        through = self._through(plain)
        return [Kept(through[name]) for name in names]

    def close(self) -> None:
        """End the stages."""
        with suppress(Exception):  # the cluster may be gone
            remove_placement_group(self._group)

    def _through(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        known = dict(feed)
        for stage, (inputs, defaults) in zip(self._stages, self._names, strict=True):
            taken = {name: known[name] for name in inputs}
            taken |= {name: known[name] for name in defaults if name in known}
            known |= ray.get(stage.run.remote(taken))
        return known
