"""From what was found on a machine to what cannot be done on it, and the command that mends it."""

from collections.abc import Mapping, Sequence

from .diagnosis import Diagnosis, Finding
from .extras import EXTRAS, Package

#: Below these, in bytes, a release of even a small model may not end.
_DISK = 2 * 10**9
_MEMORY = 2 * 10**9
#: It forwards to a remote service; that it computes nothing here is no fault.
_REMOTE = "AzureExecutionProvider"


def findings(seen: Diagnosis, clashes: Mapping[str, Sequence[str]]) -> tuple[Finding, ...]:
    """All that cannot be done, the most basic first."""
    found = (
        *_conflicts(clashes),
        *_absent(seen.packages, bool(seen.driver.devices)),
        *_idle(seen),
        *_inexact(seen),
        *_gpu(seen),
        *_engines(seen),
        *_narrow("disk", "use --workspace on another disk", seen.disk_free_bytes, _DISK),
        *_narrow("memory", "end other programs", seen.machine.available_bytes, _MEMORY),
    )
    # One command may mend what was found twice, as a package and as a backend.
    return tuple({item.mend: item for item in reversed(found)}.values())[::-1]


def _conflicts(clashes: Mapping[str, Sequence[str]]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            what=f"trust what `import {module}` gives",
            why=f"{' and '.join(owners)} write the same files and spoil each other",
            mend=f"pip uninstall -y {' '.join(owners)} && pip install {owners[-1]}",
        )
        for module, owners in clashes.items()
    )


def _absent(packages: Sequence[Package], gpu: bool) -> tuple[Finding, ...]:
    found: list[Finding] = []
    for extra, purpose in EXTRAS.items():
        lacking = [item for item in packages if extra in item.extras and _lacks(item, packages)]
        if lacking and (gpu or extra != "gpu"):
            why = ", ".join(item.lack for item in lacking)
            found.append(Finding(what=purpose, why=why, mend=_install(extra, packages)))
    return tuple(found)


def _lacks(item: Package, packages: Sequence[Package]) -> bool:
    """On a GPU host onnxruntime-gpu does what onnxruntime would, never the other way round."""
    instead = item.name == "onnxruntime" and any(
        other.name == "onnxruntime-gpu" and other.fits for other in packages
    )
    return not item.fits and not instead


def _install(extra: str, packages: Sequence[Package]) -> str:
    command = f"pip install 'llmdeploy[{extra}]'" if extra else "pip install --upgrade llmdeploy"
    both = extra == "gpu" and any(item.name == "onnxruntime" and item.version for item in packages)
    return f"pip uninstall -y onnxruntime && {command}" if both else command


def _idle(seen: Diagnosis) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            what=f"run on {item.name}, though ONNX Runtime lists it",
            why=item.reason or "it computes nothing",
            mend="install the driver and the libraries it is built for; until then the CPU is used",
        )
        for item in seen.providers
        if not item.works and item.name != _REMOTE
    )


def _inexact(seen: Diagnosis) -> tuple[Finding, ...]:
    if seen.products.exact is not False:
        return ()
    return (
        Finding(
            what="trust INT8 of other tools",
            why=f"of products of uint8 and int8 {seen.products.reason}",
            mend="`llmdeploy build --int8` makes weights that fit; for others set ONNX Runtime's"
            " session.x64quantprecision to 1",
        ),
    )


def _gpu(seen: Diagnosis) -> tuple[Finding, ...]:
    if seen.driver.devices:
        return ()
    mend = "copy the workspace to a host with an NVIDIA GPU and run `llmdeploy verify` there"
    why = seen.driver.reason or "the driver shows no device"
    return (Finding(what="execute an engine on a GPU", why=why, mend=mend),)


def _engines(seen: Diagnosis) -> tuple[Finding, ...]:
    return tuple(
        _unbuilt(item.name, item.cannot_build) for item in seen.backends if item.cannot_build
    )


def _unbuilt(name: str, reason: str) -> Finding:
    """A backend's reason is `why, mend` as every error of ours is."""
    why, _, mend = reason.partition(", ")
    elsewhere = f"run `llmdeploy build --backend {name}` on a host that has what it needs"
    return Finding(what=f"build {name} engines", why=why, mend=mend or elsewhere)


def _narrow(what: str, mend: str, free: int, need: int) -> tuple[Finding, ...]:
    if free >= need:
        return ()
    why = f"{free / 1e9:.1f} GB of {what} free, {need / 1e9:.0f} GB is the least"
    return (Finding(what="count on a release to end", why=why, mend=mend),)
