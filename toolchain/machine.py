"""The machine a figure is measured on: processor, cores, memory, operating system."""

import os
import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict

#: Instruction sets that decide how fast INT8 and bf16 are on a CPU, as Linux spells them.
_TELLING = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp")
_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class Machine(BaseModel):
    """Processor, the cores this process may use, bytes of memory it may use, system, Python."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    features: tuple[str, ...]
    cores: int
    memory_bytes: int
    available_bytes: int
    os: str
    python: str


def machine() -> Machine:
    """Read this machine's facts; nothing is imported or executed for it."""
    info = _fields(_CPUINFO)
    flags = set(info.get("flags", info.get("Features", "")).split())
    memory = _fields(_MEMINFO)
    return Machine(
        cpu=info.get("model name") or platform.processor() or platform.machine(),
        features=tuple(name for name in _TELLING if name in flags),
        cores=_cores(),
        memory_bytes=min(_bytes(memory.get("MemTotal")), _limit()),
        available_bytes=min(_bytes(memory.get("MemAvailable")), _limit()),
        os=f"{_system()} {platform.machine()}",
        python=platform.python_version(),
    )


def _fields(path: Path) -> dict[str, str]:
    """The first `key : value` of each key; nothing where the file is not there."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in reversed(lines))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _bytes(kilobytes: str | None) -> int:
    return int(kilobytes.split()[0]) * 1024 if kilobytes else 0


def _limit() -> int:
    """What the container allows; a number larger than any memory where nothing limits it."""
    try:
        return int(_CGROUP.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 2**63


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform(terse=True)
