"""Which gates a release can have, for whoever names those that may stay unexecuted."""

from collections.abc import Sequence

from .. import ConfigError
from . import registry
from .config import Gate

#: What is held against what it came from, whatever the backend.
_STEPS = ("export", "optimize", "compress", "quantize")
_NO_LIMITS = {"last_release", "allow_unexecuted"}


def names() -> tuple[str, ...]:
    """Every gate that a configuration can ask for, and what stands before the dot of several."""
    engines = [f"engine/{backend}" for backend in registry.names("backends")]
    limits = [name.replace("_", "-") for name in Gate.model_fields if name not in _NO_LIMITS]
    parities = [f"parity.{each}" for each in (*_STEPS, *engines)]
    return ("parity", "precision", *parities, *(f"precision.{each}" for each in engines), *limits)


def check(asked: Sequence[str], where: str = "--allow-unexecuted") -> None:
    """Refuse names that no gate can have; `parity.export/encoder` is one of several graphs.

    Raises:
        ConfigError: there is no such gate.
    """
    known = names()
    for name in asked:
        if name not in known and not (name.startswith("parity.") and _step(name) in known):
            raise ConfigError(
                f"no gate is called {name!r}",
                where=where,
                mend=f"one of {', '.join(known)}",
            )


def _step(name: str) -> str:
    """The parity of a step, from that of one of its graphs."""
    return name.rpartition("/")[0]
