"""Which engines of a bundle this machine can load, and what it lacks for the others."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from ...deploy import target
from ...deploy.bundle import Manifest, unpack
from ...deploy.trt_plan import header
from ...deploy.trt_plan import unmet as plan_unmet


class Fit(BaseModel):
    """One engine: its backend, the version in a plan's header, and what is lacking here."""

    model_config = ConfigDict(frozen=True)

    engine: str
    backend: str
    version: str = ""
    lacking: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether nothing is lacking."""
        return not self.lacking


def fitting(bundle: Path) -> list[Fit]:
    """Hold every engine of a bundle, an archive or a folder, against this machine.

    Raises:
        BundleError: it is no bundle, or not what its manifest says.
    """
    if bundle.is_dir():
        return list(_fits(bundle))
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder:
        return list(_fits(unpack(bundle, Path(folder) / "bundle")))


def _fits(folder: Path) -> Iterator[Fit]:
    for engine in Manifest.load(folder).engines:
        lacking = target.unmet(engine.requires)
        plans = sorted((folder / engine.path).rglob("*.plan"))
        found = [header(plan) for plan in plans]
        lacking += [why for each in found for why in plan_unmet(each)]
        yield Fit(
            engine=engine.path,
            backend=engine.backend,
            version=found[0].version if found else "",
            lacking=tuple(dict.fromkeys(lacking)),
        )


def show(found: list[Fit]) -> Table:
    """The table for people."""
    table = Table(box=None, header_style="bold")
    for name in ("engine", "backend", "plan version", "loads here", "why not"):
        table.add_column(name, overflow="fold")
    for each in found:
        why = "; ".join(each.lacking)
        table.add_row(each.engine, each.backend, each.version, "yes" if each.fits else "no", why)
    return table
