"""matrix.toml: which models, precisions and targets, and the cells that they make."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from ... import ConfigError
from ...deploy.misfit import misfit
from .. import registry
from ..config import Config, Precision, Section, load


class Exclude(Section):
    """Cells that are left out: those that agree in all that is named here."""

    model: str | None = None
    precision: Precision | None = None
    target: str | None = None


class Matrix(Section):
    """The file: configurations by path, and what goes over their `[build]`.

    Without `precisions` or `targets` each model has its own. A target is a backend, or several
    joined by `+` that one bundle holds.
    """

    models: tuple[str, ...] = Field(min_length=1)
    precisions: tuple[Precision, ...] = ()
    targets: tuple[str, ...] = ()
    exclude: tuple[Exclude, ...] = ()

    @field_validator("targets")
    @classmethod
    def _named(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if not all(all(target.split("+")) for target in targets):
            raise ValueError("a target is BACKEND or BACKEND+BACKEND")
        return targets


@dataclass(frozen=True)
class Cell:
    """One release of the matrix: a model's configuration, a precision and backends."""

    model: str
    config: Path
    precision: Precision
    backends: tuple[str, ...]

    @property
    def target(self) -> str:
        """The backends as one word."""
        return "+".join(self.backends)

    @property
    def folder(self) -> Path:
        """Where its workspace lies in the matrix's."""
        return Path(self.model, self.precision, self.target)


def read(path: Path) -> tuple[Cell, ...]:
    """The cells of matrix.toml, in its order; each configuration is read and checked.

    Raises:
        ConfigError: a file is not there or wrong, two models have one name, an exclusion meets
            nothing, no cell is left, or nobody offers a backend.
    """
    asked = _matrix(path)
    configs = {name: path.parent / name for name in dict.fromkeys(asked.models)}
    models = [(each, load(each)) for each in configs.values()]
    names = [_name(file, config) for file, config in models]
    for name in names:
        if names.count(name) > 1:
            mend = "give each its own [bundle] name"
            raise ConfigError(f"two models are called {name}", where=path, mend=mend)
    cells = [
        Cell(name, file.absolute(), precision, tuple(target.split("+")))
        for name, (file, config) in zip(names, models, strict=True)
        for precision in dict.fromkeys(asked.precisions or (config.build.precision,))
        for target in dict.fromkeys(asked.targets or ("+".join(config.build.backends),))
    ]
    for backend in dict.fromkeys(name for cell in cells for name in cell.backends):
        registry.find("backends", backend)
    return _left(cells, asked.exclude, path)


def _matrix(path: Path) -> Matrix:
    try:
        return Matrix.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        mend = 'write models = ["MODEL/llmdeploy.toml", ...] there'
        raise ConfigError("no matrix there", where=path, mend=mend) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("the matrix is not TOML", where=path, mend=str(error)) from error
    except ValidationError as error:
        mend = f"it takes {', '.join(Matrix.model_fields)}"
        raise ConfigError(misfit(error), where=path, mend=mend) from error


def _name(file: Path, config: Config) -> str:
    """What the model is called: its bundle's name, else its folder's, fit for a folder's name."""
    name = config.bundle.name or file.absolute().parent.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def _left(cells: list[Cell], excluded: tuple[Exclude, ...], path: Path) -> tuple[Cell, ...]:
    for each in excluded:
        if not any(_meets(each, cell) for cell in cells):
            words = " ".join(value for value in (each.model, each.precision, each.target) if value)
            raise ConfigError(f"no cell to exclude: {words or 'nothing is named'}", where=path)
    left = tuple(cell for cell in cells if not any(_meets(each, cell) for each in excluded))
    if not left:
        raise ConfigError("no cell is left", where=path, mend="exclude fewer")
    return left


def _meets(exclude: Exclude, cell: Cell) -> bool:
    pairs = (
        (exclude.model, cell.model),
        (exclude.precision, cell.precision),
        (exclude.target, cell.target),
    )
    named = [(wanted, found) for wanted, found in pairs if wanted is not None]
    return bool(named) and all(wanted == found for wanted, found in named)
