"""The header of a TensorRT plan, read as bytes: no GPU and no TensorRT needed.

Layout as in trtexec's `--getPlanVersionOnly` (TensorRT OSS, samples/common/sampleEngines.cpp):
tag at 0, serialization version at 4, size at 16 and four version bytes at 24, little-endian.
"""

import struct
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .. import BuildError
from . import gpu

TAGS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
LENGTH = 28


@dataclass(frozen=True)
class Header:
    """What made a plan; `bytes` is the size it says it has, 0 where the version does not say."""

    backend: str
    version: str
    serialization: int
    bytes: int


def header(path: Path) -> Header:
    """Read a plan's header.

    Raises:
        BuildError: it is no plan, or is shorter than it says.
    """
    try:
        with path.open("rb") as file:
            start = file.read(LENGTH)
        size = path.stat().st_size
    except OSError as error:
        raise BuildError(f"cannot read the plan: {error.strerror}", where=path) from error
    backend = TAGS.get(start[:4])
    if backend is None or len(start) < LENGTH:
        raise BuildError("not a TensorRT plan", where=path, mend="build the engine again")
    (serialization,) = struct.unpack_from("<I", start, 4)
    (stated,) = struct.unpack_from("<Q", start, 16)
    if backend == "tensorrt-rtx" and stated > size:
        raise BuildError(
            f"the plan is cut off: {size} of {stated} bytes", where=path, mend="build it again"
        )
    version = ".".join(str(part) for part in start[24:28])
    return Header(backend, version, serialization, stated)


def unmet(found: Header) -> tuple[str, ...]:
    """Why this machine cannot load a plan, as its header tells; empty when it may.

    A plan is of one version, unless it was built version-compatible: then of its major version.
    """
    package = found.backend
    try:
        here = metadata.version(package)
    except metadata.PackageNotFoundError:
        here = ""
    lack = [] if here else [f"{package} {found.version} is not installed"]
    if here and here.split(".")[:3] != found.version.split(".")[:3]:
        lack.append(f"it is of {package} {found.version}, and {here} is installed")
    why = gpu.unusable()
    return (*lack, *([why] if why else []))
