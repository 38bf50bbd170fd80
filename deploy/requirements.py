"""What an engine's own files say that a machine must have to run it."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .bundle import Requires
from .trt_plan import TAGS, header


def derive(backend: str, folder: Path, versions: Mapping[str, str]) -> Requires:
    """The least that is certain: memory for its bytes, and the runtime that it was made by.

    An ONNX Runtime engine holds operators of the version that optimised it, and a TensorRT plan
    loads in no older version than its own.

    Raises:
        BuildError: a plan is none, or is cut off.
    """
    # What a stage says of its making differs from run to run, and is not loaded.
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "stage.json"]
    packages: dict[str, str] = {}
    if backend == "onnxruntime" and backend in versions:
        packages[backend] = ".".join(versions[backend].split(".")[:2])
    for plan in files:
        if backend in TAGS.values() and plan.suffix == ".plan":
            packages[backend] = header(plan).version
    return Requires(packages=packages, memory_bytes=sum(path.stat().st_size for path in files))


#: The oldest driver for each major of CUDA (CUDA's release notes, minor version compatibility).
DRIVERS = {"12": "525", "13": "580"}


def on_gpu(base: Requires, backend: str, facts: Mapping[str, Any]) -> Requires:
    """`base` with what an engine for a GPU was compiled for: capabilities, and CUDA's driver.

    `facts` are the build's own. Of a CPU's engine nothing is added.
    """
    if backend not in TAGS.values():
        return base
    module = backend.replace("-", "_")
    driver = next((DRIVERS[major] for major in DRIVERS if _installed(f"{module}_cu{major}")), None)
    capabilities = tuple(facts.get("compute_capabilities") or ())
    return base.model_copy(update={"driver": driver, "compute_capabilities": capabilities})


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
