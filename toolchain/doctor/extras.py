"""The packages llmdeploy asks for, by extra, and which are here; nothing is imported."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, computed_field

#: What an extra is for; the base install is the empty name.
EXTRAS: Mapping[str, str] = {
    "": "run llmdeploy",
    "export": "export a checkpoint and compare with torch",
    "cpu": "build and run onnxruntime engines",
    "gpu": "build and run TensorRT engines on this GPU",
    "rtx": "compile TensorRT-RTX engines",
    "sign": "sign bundles and check their signatures",
    "triton": "pack for Triton and ask its server",
    "gguf": "read GGUF checkpoints",
    "serve": "serve a bundle over HTTP",
    "ray": "serve it from a cluster",
    "tune": "search passes and options for given limits",
    "oci": "push and pull bundles",
    "mlflow": "log a release in MLflow",
}
#: Modules that more than one distribution brings; two at a time spoil each other.
_SHARED = ("onnxruntime", "tensorrt", "tensorrt_rtx")


class Package(BaseModel):
    """A package that llmdeploy asks for: `extras` that need it, the version here or null."""

    model_config = ConfigDict(frozen=True)

    name: str
    wanted: str
    version: str | None
    extras: tuple[str, ...]

    @computed_field
    @property
    def fits(self) -> bool:
        """Whether the version here is one that is asked for."""
        return self.version is not None and Requirement(f"x{self.wanted}").specifier.contains(
            self.version, prereleases=True
        )

    @property
    def lack(self) -> str:
        """What is wrong with it, in words."""
        if self.version is None:
            return f"{self.name} is not installed"
        return f"{self.name} {self.version} is not {self.wanted}"


def packages() -> tuple[Package, ...]:
    """Every package of the base install and of the extras that people install."""
    found: dict[str, Package] = {}
    for need in map(Requirement, _needs()):
        extras = tuple(extra for extra in EXTRAS if _asked(need, extra))
        if extras and need.name != "llmdeploy":
            found[need.name] = Package(
                name=need.name,
                wanted=str(need.specifier),
                version=_version(need.name),
                extras=extras,
            )
    return tuple(found.values())


def clashes() -> dict[str, list[str]]:
    """Modules that two installed distributions both claim."""
    owners = packages_distributions()
    return {
        module: sorted(set(owners[module]))
        for module in _SHARED
        if len(set(owners.get(module, ()))) > 1
    }


def _needs() -> list[str]:
    try:
        return requires("llmdeploy") or []
    except PackageNotFoundError:
        return []


def _asked(need: Requirement, extra: str) -> bool:
    if need.marker is None:
        return extra == ""
    return need.marker.evaluate({"extra": extra}) and not (
        extra and need.marker.evaluate({"extra": ""})
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
