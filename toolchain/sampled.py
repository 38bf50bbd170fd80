"""What a stage that reads samples is fresh by: their bytes, and what makes feeds of them."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import ConfigError
from .feeds import assets, no_samples
from .keeping import wanted
from .narrowing import home
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
        status = path.stat()
        return _digest_once(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ConfigError(
            f"no calibration samples: {error.strerror}", where=path, mend="name a file that exists"
        ) from error


@lru_cache(maxsize=256)
def _digest_once(path: Path, _size: int, _changed: int) -> str:
    return digest_file(path)


def assets_digest(run: Run, stage: str = "export") -> str:
    """The digest of io.json, tokenizer and configuration that belong to what a stage made."""
    folders = {"": run.folder("export"), **{graph: home(run, stage, graph) for graph in run.graphs}}
    return digest_of(
        {
            graph: {path.name: digest_file(path) for path in assets(folder)}
            for graph, folder in folders.items()
        }
    )


def sample_options(run: Run) -> dict[str, Any]:
    """What decides which feeds parity is measured on: which samples, their bytes, the tokenizer."""
    table = run.config.calibration
    named = json.loads(
        table.model_dump_json(exclude={"max_drop", "pairs", "keep", "method", "preset"})
    )
    content = samples_digest(run) if table.samples else ""
    return {**named, "content": content, "assets": assets_digest(run)}


def samples_of_cache(run: Run) -> dict[str, str]:
    """The samples as an input of a stage that reads them for an int8 cache alone."""
    return {"samples": samples_digest(run)} if wanted(run) else {}
