"""Execute a plan on a GPU: either module's runtime, buffers through Polygraphy's CUDA wrapper."""

import importlib
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import BuildError
from .backend import Feed, Run
from .trt_plan import header


@contextmanager
def open_plan(module: str, path: Path) -> Generator[Run]:
    """Deserialise a plan of TensorRT or TensorRT-RTX and run it feed by feed.

    Raises:
        BuildError: the plan is not for this GPU, driver or version.
    """
    header(path)
    trt = importlib.import_module(module)
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        mend = "build it on this machine, or for its compute capability"
        raise BuildError("the plan does not load on this GPU", where=path, mend=mend)
    context = engine.create_execution_context()
    with ExitStack() as stack:
        session = _Session(trt, engine, context, stack)
        yield session.run


class _Session:
    """An execution context with one device buffer a tensor, grown when a feed needs more."""

    def __init__(self, trt: Any, engine: Any, context: Any, stack: ExitStack) -> None:
        from polygraphy import cuda

        self._trt, self._engine, self._context = trt, engine, context
        self._cuda = cuda
        self._stack = stack
        self._stream = stack.enter_context(cuda.Stream())
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        of = {name: engine.get_tensor_mode(name) for name in names}
        self._inputs = [name for name in names if of[name] == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if of[name] == trt.TensorIOMode.OUTPUT]
        self._buffers: dict[str, Any] = {}
        self._profile = 0

    def run(self, feed: Feed) -> dict[str, NDArray[np.generic]]:
        """One execution; the tightest optimization profile that holds the feed's shapes is used."""
        missing = [name for name in self._inputs if name not in feed]
        if missing:
            raise BuildError(f"input {missing[0]} is missing", mend="feed every input")
        self._choose({name: feed[name].shape for name in self._inputs})
        for name in self._inputs:
            self._put(name, feed[name])
        results = {name: self._place(name) for name in self._outputs}
        if not self._context.execute_async_v3(self._stream.ptr):
            raise BuildError("the engine failed on this feed")
        for name, array in results.items():
            self._buffers[name].copy_to(array, stream=self._stream)
        self._stream.synchronize()
        return results

    def _choose(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        profiles = range(self._engine.num_optimization_profiles)
        holding = [
            index
            for index in profiles
            if all(self._within(name, shape, index) for name, shape in shapes.items())
        ]
        if not holding:
            stated = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            mend = "widen [build.profile] and build again"
            raise BuildError(f"no profile holds {stated}", mend=mend)
        index = min(holding, key=self._elements)
        if index != self._profile:
            self._context.set_optimization_profile_async(index, self._stream.ptr)
            self._stream.synchronize()
            self._profile = index

    def _elements(self, index: int) -> int:
        """Of all inputs at a profile's largest sizes."""
        largest = (self._engine.get_tensor_profile_shape(name, index)[2] for name in self._inputs)
        return sum(prod(shape) for shape in largest)

    def _within(self, name: str, shape: tuple[int, ...], index: int) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, index)
        sizes = zip(low, shape, high, strict=True)
        return len(low) == len(shape) and all(a <= b <= c for a, b, c in sizes)

    def _put(self, name: str, array: NDArray[np.generic]) -> None:
        host = np.ascontiguousarray(array)
        self._buffer(name, host.shape, host.dtype).copy_from(host, stream=self._stream)
        if not self._context.set_input_shape(name, host.shape):
            raise BuildError(f"input {name} cannot have shape {host.shape}")

    def _place(self, name: str) -> NDArray[np.generic]:
        shape = tuple(self._context.get_tensor_shape(name))
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        self._buffer(name, shape, dtype)
        return np.empty(shape, dtype)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        if name not in self._buffers:
            made = self._cuda.DeviceArray(shape=shape, dtype=dtype)
            self._buffers[name] = self._stack.enter_context(made)
        buffer = self._buffers[name]
        buffer.resize(shape)
        self._context.set_tensor_address(name, buffer.ptr)
        return buffer
