"""What this machine can and cannot do, found by trying."""

import shutil
import subprocess
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ... import __version__
from .. import registry
from ..machine import machine
from ..probe import ask
from ..report.figures import size
from .diagnosis import Diagnosis, Driver, Engine, Gpu, Module, Products, Provider
from .extras import clashes, packages
from .mends import findings


def diagnose(folder: Path = Path()) -> Diagnosis:
    """Try what is here; `folder` is where a workspace would lie."""
    seen = Diagnosis(
        llmdeploy=__version__,
        machine=machine(),
        disk_free_bytes=shutil.disk_usage(_existing(folder)).free,
        packages=packages(),
        driver=_driver(),
        providers=_providers(),
        products=_products(),
        modules=tuple(_module(name) for name in ("tensorrt", "tensorrt_rtx")),
        backends=tuple(_backend(name) for name in registry.names("backends")),
    )
    return seen.model_copy(update={"findings": findings(seen, clashes())})


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _driver() -> Driver:
    seen = ask("gpus")
    devices = tuple(Gpu.model_validate(device) for device in seen.get("devices", ()))
    reason = seen.get("reason") or seen.get("error")
    return Driver(version=_smi(), cuda=seen.get("cuda"), devices=devices, reason=reason)


def _smi() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def _providers() -> tuple[Provider, ...]:
    return tuple(_provider(name) for name in sorted(ask("listed").get("providers", ())))


def _provider(name: str) -> Provider:
    answer = ask("provider", name)
    reason = answer.get("reason") or answer.get("error")
    return Provider(name=name, works=answer.get("works", False), reason=reason)


def _products() -> Products:
    answer = ask("products")
    exact = answer.get("exact")
    cut = "two of them are cut off at 16 bits: the processor has no dot product of bytes (VNNI)"
    return Products(exact=exact, reason=cut if exact is False else answer.get("error"))


def _module(name: str) -> Module:
    answer = ask("tensorrt", name)
    reason = answer.get("reason") or answer.get("error")
    builder = answer.get("builder", False)
    return Module(name=name, version=answer.get("version"), builder=builder, reason=reason)


def _backend(name: str) -> Engine:
    package = registry.package(registry.names("backends")[name])
    answer = ask("backend", name)
    build, execute = (
        answer.get(key, answer.get("error")) for key in ("cannot_build", "cannot_execute")
    )
    return Engine(name=name, package=package, cannot_build=build, cannot_execute=execute)


def show(seen: Diagnosis) -> RenderableType:
    """The diagnosis as people read it: the machine, what is here, what works, what does not."""
    return Group(_machine(seen), "", _packages(seen), "", _works(seen), "", _findings(seen))


def _machine(seen: Diagnosis) -> Table:
    here, driver = seen.machine, seen.driver
    gpus = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in driver.devices)
    speaks = f", driver {driver.version or 'unknown'}, CUDA {driver.cuda}" if driver.cuda else ""
    grid = _grid("this machine", "")
    grid.add_row("processor", Text(f"{here.cpu}, {here.cores} cores, {' '.join(here.features)}"))
    grid.add_row("memory", f"{size(here.available_bytes)} free of {size(here.memory_bytes)}")
    grid.add_row("disk", f"{size(seen.disk_free_bytes)} free")
    grid.add_row("GPU", Text((gpus or f"none: {driver.reason}") + speaks))
    grid.add_row("system", Text(f"{here.os}, Python {here.python}, llmdeploy {seen.llmdeploy}"))
    return grid


def _packages(seen: Diagnosis) -> Table:
    grid = _grid("package", "here", "wanted", "extra")
    for item in seen.packages:
        here = Text(item.version or "not here", style="green" if item.fits else "yellow")
        extras = ", ".join(extra or "base" for extra in item.extras)
        grid.add_row(item.name, here, item.wanted, extras)
    return grid


def _works(seen: Diagnosis) -> Table:
    grid = _grid("tried", "works", "why not")
    for item in seen.providers:
        grid.add_row(f"run a node on {item.name}", _mark(item.works), Text(item.reason or ""))
    exact = seen.products
    what = "add up products of uint8 and int8"
    grid.add_row(what, _mark(exact.exact is True), Text(exact.reason or ""))
    for item in seen.modules:
        grid.add_row(f"make a builder of {item.name}", _mark(item.builder), Text(item.reason or ""))
    for item in seen.backends:
        build, execute = item.cannot_build, item.cannot_execute
        grid.add_row(Text(f"build for {item.name}"), _mark(not build), Text(build or ""))
        grid.add_row(Text(f"execute {item.name}"), _mark(not execute), Text(execute or ""))
    return grid


def _findings(seen: Diagnosis) -> RenderableType:
    if not seen.findings:
        return Text("nothing is missing", style="green")
    grid = _grid("cannot be done here", "why", "mend")
    for item in seen.findings:
        grid.add_row(Text(item.what, style="yellow"), Text(item.why), Text(item.mend))
    return grid


def _mark(works: bool) -> Text:
    return Text("yes", style="green") if works else Text("no", style="yellow")


def _grid(*columns: str) -> Table:
    grid = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    grid.columns[0].no_wrap = True
    return grid
