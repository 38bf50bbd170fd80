"""Names to parts, by entry point: third parties and our own through the same door."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .. import ConfigError

KINDS = ("passes", "observers", "backends", "packagers", "metrics")


@cache
def names(kind: str) -> Mapping[str, EntryPoint]:
    """Every name offered under `llmdeploy.<kind>`.

    Raises:
        ConfigError: two packages offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=f"llmdeploy.{kind}"), key=lambda point: point.name):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise ConfigError(
                f"{kind} {point.name!r} is offered twice, by {package(other)} and {package(point)}",
                mend="uninstall one of them",
            )
        found[point.name] = point
    return found


def package(point: EntryPoint) -> str:
    """The distribution that offers an entry point."""
    return point.dist.name if point.dist else point.module


def find(kind: str, name: str) -> Any:
    """Load what `name` stands for.

    Raises:
        ConfigError: nobody offers it, or it cannot be imported.
    """
    offered = names(kind)
    if name not in offered:
        raise ConfigError(
            f"nothing in {kind} is called {name!r}", mend=f"one of {', '.join(offered)}"
        )
    try:
        return offered[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{kind} {name!r} of {package(offered[name])} cannot be loaded", mend=str(error)
        ) from error
