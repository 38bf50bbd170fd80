"""What `[build.options.tensorrt]` and `[build.options.tensorrt-rtx]` may say."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .. import ConfigError
from . import gpu
from .misfit import misfit

Capability = Annotated[str, Field(pattern=r"^\d+\.\d$")]
Sizes = tuple[int, int, int]


class Options(BaseModel):
    """Options of both; what one of them cannot honour is refused by `read`.

    `profiles` are further optimization profiles beside the one of `[build.profile]`: sizes
    [min, opt, max] of the dimensions that differ from it; where none are given, a graph with a
    cache has one for its decode step. `timing_cache` is a folder of caches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace_mb: int | None = Field(default=None, ge=1)
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    tf32: bool = False
    sparse_weights: bool = False
    weight_streaming: bool = False
    refit: bool = False
    strip_plan: bool = False
    version_compatible: bool = False
    hardware_compatibility: str | None = Field(
        default=None, pattern="^(ampere-plus|same-compute-capability)$"
    )
    timing_cache: str | None = None
    compute_capabilities: tuple[Capability, ...] = ()
    profiles: tuple[dict[str, Sizes], ...] | None = None
    seconds: int = Field(default=3600, ge=1)

    @field_validator("profiles")
    @classmethod
    def _ordered(
        cls, profiles: tuple[dict[str, Sizes], ...] | None
    ) -> tuple[dict[str, Sizes], ...] | None:
        for name, sizes in (item for profile in profiles or () for item in profile.items()):
            if not 0 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise ValueError(f"{name} = {list(sizes)} is not [min, opt, max] in order")
        return profiles


#: What a backend cannot honour, and why.
REFUSED = {
    "tensorrt": {
        "compute_capabilities": "TensorRT builds for the GPU it runs on",
    },
    "tensorrt-rtx": {
        "version_compatible": "the lean runtime is not part of TensorRT-RTX",
        "hardware_compatibility": "TensorRT-RTX ignores it; name compute-capabilities",
        "timing_cache": "TensorRT-RTX keeps no timing cache; it compiles kernels on the device",
    },
}
#: What fails to build where no GPU answers (TensorRT-RTX 1.7.1).
NEEDS_GPU = ("refit", "strip_plan")


def read(backend: str, given: Mapping[str, object], no_gpu: str | None) -> Options:
    """The options of a backend.

    Raises:
        ConfigError: unknown, of the wrong kind, or nothing that this backend can honour here.
    """
    where = f"[build.options.{backend}]"
    try:
        options = Options.model_validate({key.replace("-", "_"): given[key] for key in given})
    except ValidationError as error:
        known = ", ".join(name.replace("_", "-") for name in Options.model_fields)
        what = misfit(error, dashes=True)
        raise ConfigError(what, where=where, mend=f"it takes {known}") from error
    needs_gpu = dict.fromkeys(NEEDS_GPU, f"it needs a GPU to build: {no_gpu}") if no_gpu else {}
    for name, why in {**REFUSED[backend], **needs_gpu}.items():
        if getattr(options, name) != Options.model_fields[name].default:
            raise ConfigError(f"{name.replace('_', '-')}: {why}", where=where, mend="remove it")
    return options


def arguments(options: Options, module: str) -> dict[str, Any]:
    """Arguments of Polygraphy's configuration, as JSON values, only those that were asked for."""
    given: dict[str, Any] = {
        "tf32": options.tf32,
        "builder_optimization_level": options.optimization_level,
        "sparse_weights": options.sparse_weights or None,
        "weight_streaming": options.weight_streaming or None,
        "refittable": options.refit or None,
        "strip_plan": options.strip_plan or None,
        "version_compatible": options.version_compatible or None,
        "load_timing_cache": _cache(options.timing_cache, module),
        "hardware_compatibility": options.hardware_compatibility,
        "workspace_bytes": options.workspace_mb * 2**20 if options.workspace_mb else None,
    }
    if module == "tensorrt_rtx":
        pairs = [each.split(".") for each in options.compute_capabilities]
        given["compute_capabilities"] = [[int(major), int(minor)] for major, minor in pairs]
    return {key: value for key, value in given.items() if value is not None}


def _cache(folder: str | None, module: str) -> str | None:
    """The timing cache in a folder of them: one a GPU and version, since no other can use it."""
    if folder is None:
        return None
    kind = "-".join((gpu.name() or "no-gpu").lower().split())
    Path(folder).mkdir(parents=True, exist_ok=True)
    return str(Path(folder) / f"{kind}-{metadata.version(module)}.cache")
