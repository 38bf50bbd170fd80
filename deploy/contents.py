"""What a packager is given: the files of a release, and golden runs of its engine."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import ConfigError
from .bundle import Lineage, Recipe, Requires, Tolerance
from .text import Text

Arrays = Mapping[str, NDArray[Any]]
#: From an engine's file to the folders of so many stages, written below the folder that is given.
Cut = Callable[[Path, int, Path], Sequence[Path]]


@dataclass(frozen=True)
class Case:
    """One golden run: what went in, what the real engine gave, and the texts it was made from.

    `graph` names the one that was run where the engine has several.
    """

    feed: Arrays
    outputs: Arrays
    texts: Sequence[Text] = ()
    max_length: int | None = None
    graph: str = ""


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    `assets` is the folder of io.json, the tokenizer and the configuration; `portable` that of the
    ONNX graph an engine can be built from again, `recipes` says how. `engines` are folders by
    backend, `executed` the backends that ran where `golden` was made; `requires` is what a machine
    needs for them, by default what their files say. `created` is a date to state, by default
    SOURCE_DATE_EPOCH's where it is set, so that the same inputs give the same bytes. `metrics`
    are measured scores by name; `parameters` what the release was asked for and `builder` a URI
    of who built it, both for the provenance. `options` are what a packager may be asked for, by
    its name; `cut` cuts an engine into pipeline stages.
    """

    name: str
    version: str
    engines: Mapping[str, Path]
    assets: Path
    golden: Sequence[Case]
    tolerance: Tolerance
    lineage: Lineage
    portable: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    requires: Mapping[str, Requires] = field(default_factory=dict[str, Requires])
    recipes: Mapping[str, Recipe] = field(default_factory=dict[str, Recipe])
    executed: frozenset[str] = frozenset(["onnxruntime"])
    licences: Sequence[Path] = ()
    reports: Sequence[Path] = ()
    created: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    builder: str = ""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    cut: Cut | None = None

    @property
    def when(self) -> str | None:
        """The date to state: `created`, else SOURCE_DATE_EPOCH (reproducible-builds.org)."""
        stated = stated_date()
        return self.created or (stated.isoformat() if stated else None)


def stated_date() -> datetime | None:
    """SOURCE_DATE_EPOCH's date, None where it is not set.

    Raises:
        ConfigError: it is no number of seconds of a date.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return None
    try:
        seconds = int(epoch) if epoch.isdecimal() else -1
        if seconds < 0:
            raise ValueError(epoch)
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        what = f"{epoch[:40]!r} is no number of seconds since 1970"
        mend = "date +%s gives one; milliseconds are too many"
        raise ConfigError(what, where="SOURCE_DATE_EPOCH", mend=mend) from error
