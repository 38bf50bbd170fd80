"""What this machine has, against what an engine requires: bytes, CPU features, packages, a GPU."""

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from .bundle import Requires
from .version import older

#: Packages that hold the same module.
_INSTEAD = {"onnxruntime": ("onnxruntime-gpu",)}
_CPU = Path("/proc/cpuinfo")


def unmet(requires: Requires) -> list[str]:
    """What is required and not here, one sentence each; empty when an engine can run here."""
    return [
        *_packages(requires),
        *_memory(requires),
        *_features(requires),
        *_gpu(requires),
    ]


def lacking_space(folder: Path, needed: int) -> str:
    """How many bytes are lacking where `folder` lies, in words; empty when there are enough."""
    free = shutil.disk_usage(folder).free
    return "" if free >= needed else f"{needed:,} bytes are needed and {free:,} are free"


def _packages(requires: Requires) -> list[str]:
    found: list[str] = []
    for name, least in requires.packages.items():
        here = next(filter(None, map(_version, (name, *_INSTEAD.get(name, ())))), None)
        if here is None:
            found.append(f"{name[:80] or repr(name)} {least[:80]} is not installed")
        elif older(here, least):
            found.append(f"{name} {here} is older than {least[:80]}")
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):  # what is no name is not installed
        return None


def _memory(requires: Requires) -> list[str]:
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = requires.memory_bytes or 0
    return [f"{needed:,} bytes of memory are needed, {here:,} are here"] if here < needed else []


def _features(requires: Requires) -> list[str]:
    if not requires.cpu_features:
        return []
    try:
        lines = _CPU.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    here = set(flags.partition(":")[2].split())
    lack = [name for name in requires.cpu_features if name not in here]
    return [f"the CPU lacks {', '.join(lack)}"] if lack else []


def _gpu(requires: Requires) -> list[str]:
    wanted = requires.compute_capabilities
    if not wanted and not requires.driver:
        return []
    gpus = _nvidia()
    if not gpus:
        return ["no NVIDIA GPU and driver answer"]
    found: list[str] = []
    capabilities = [capability for capability, _ in gpus]
    if wanted and not set(wanted) & set(capabilities):
        here = ", ".join(capabilities)
        found.append(f"a GPU of compute capability {', '.join(wanted)} is needed, {here} is here")
    if requires.driver and older(gpus[0][1], requires.driver):
        found.append(f"the driver {gpus[0][1]} is older than {requires.driver[:80]}")
    return found


def _nvidia() -> list[tuple[str, str]]:
    """Compute capability and driver version of each GPU, as nvidia-smi says."""
    command = ["nvidia-smi", "--query-gpu=compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(",") for line in done.stdout.splitlines()]
    return [(row[0].strip(), row[1].strip()) for row in rows if len(row) == 2]
