"""What `llmdeploy doctor` finds, as frozen records; JSON by `model_dump(mode="json")`."""

from pydantic import BaseModel, ConfigDict

from ..machine import Machine
from .extras import Package


class Record(BaseModel):
    """A frozen part of a diagnosis."""

    model_config = ConfigDict(frozen=True)


class Provider(Record):
    """An ONNX Runtime provider that is listed, and whether a node really ran on it."""

    name: str
    works: bool
    reason: str | None = None


class Products(Record):
    """Whether products of uint8 and int8 add up exactly here; None where it could not be tried."""

    exact: bool | None
    reason: str | None = None


class Gpu(Record):
    """A device as the CUDA driver shows it."""

    name: str
    memory_bytes: int
    compute_capability: str


class Driver(Record):
    """The NVIDIA driver: its own version, the CUDA it speaks, its devices."""

    version: str | None
    cuda: str | None
    devices: tuple[Gpu, ...]
    reason: str | None = None


class Module(Record):
    """A TensorRT module: its version, and whether it gives a builder here."""

    name: str
    version: str | None
    builder: bool
    reason: str | None = None


class Engine(Record):
    """A backend: what stops it building here, what stops its engines running here."""

    name: str
    package: str
    cannot_build: str | None
    cannot_execute: str | None


class Finding(Record):
    """Something that cannot be done here, why, and the mend."""

    what: str
    why: str
    mend: str


class Diagnosis(Record):
    """What this machine has, what works on it, and what cannot be done here."""

    llmdeploy: str
    machine: Machine
    disk_free_bytes: int
    packages: tuple[Package, ...]
    driver: Driver
    providers: tuple[Provider, ...]
    products: Products
    modules: tuple[Module, ...]
    backends: tuple[Engine, ...]
    findings: tuple[Finding, ...] = ()
