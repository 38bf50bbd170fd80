"""What of the calibration samples a stage is fresh by."""

import json
from pathlib import Path
from typing import Any

from .. import ConfigError
from .feeds import no_samples
from .keeping import wanted
from .run import Run
from .workspace import digest_file, digest_of


def samples_digest(run: Run) -> str:
    """The digest of the calibration file's bytes, so that a changed file calibrates again.

    Raises:
        ConfigError: no samples are named, or the file is not there.
    """
    path = (
        run.config.path(run.config.calibration.samples) if run.config.calibration.samples else None
    )
    if path is None:
        raise no_samples()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return digest_of([_file_digest(file) for file in files])


def _file_digest(path: Path) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        raise ConfigError(
            f"no calibration samples: {error.strerror}", where=path, mend="name a file that exists"
        ) from error


def sample_options(run: Run) -> dict[str, Any]:
    """What of the configuration decides which samples parity is measured on."""
    table = run.config.calibration
    return json.loads(
        table.model_dump_json(exclude={"max_drop", "pairs", "keep", "method", "preset"})
    )


def samples_of_cache(run: Run) -> dict[str, str]:
    """The samples as an input of a stage that reads them for an int8 cache alone."""
    return {"samples": samples_digest(run)} if wanted(run) else {}
