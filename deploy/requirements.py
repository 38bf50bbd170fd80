"""What an engine's own files say that a machine must have to run it."""

from collections.abc import Mapping
from pathlib import Path

from .bundle import Requires
from .trt_plan import TAGS, header


def derive(backend: str, folder: Path, versions: Mapping[str, str]) -> Requires:
    """The least that is certain: memory for its bytes, and the runtime that it was made by.

    An ONNX Runtime engine holds operators of the version that optimised it, and a TensorRT plan
    loads in no older version than its own.

    Raises:
        BuildError: a plan is none, or is cut off.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    packages: dict[str, str] = {}
    if backend == "onnxruntime" and backend in versions:
        packages[backend] = ".".join(versions[backend].split(".")[:2])
    for plan in files:
        if backend in TAGS.values() and plan.suffix == ".plan":
            packages[backend] = header(plan).version
    return Requires(packages=packages, memory_bytes=sum(path.stat().st_size for path in files))
