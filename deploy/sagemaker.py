"""The SageMaker packager: the model.tar.gz that SageMaker's Triton container unpacks and loads.

The archive's top holds the folders of a model repository; the container's environment names the
one that answers
(https://docs.aws.amazon.com/sagemaker/latest/dg/deploy-models-frameworks-triton.html).
"""

import gzip
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import BundleError
from .bundle import digest
from .contents import Contents
from .triton import MODELS_FOLDER
from .triton import pack as pack_triton

ARCHIVE = "model.tar.gz"
ENVIRONMENT = "environment.json"


def pack(contents: Contents, folder: Path) -> dict[str, Any]:
    """Write `folder`/model.tar.gz, and beside it the container's environment and the repository.

    `contents.options["sagemaker"]` takes what Triton's do. The same inputs give the same bytes.

    Raises:
        ConfigError: an unknown option, or the engine it names is not there.
        MissingError: tritonclient is not installed.
        BundleError: the archive cannot be written; none is left.
    """
    options = {"triton": contents.options.get("sagemaker", {})}
    made = pack_triton(replace(contents, options=options), folder)
    archive = folder / ARCHIVE
    _compressed(folder / made["path"] / MODELS_FOLDER, archive)
    environment = {"SAGEMAKER_TRITON_DEFAULT_MODEL_NAME": _first(contents.name, made["models"])}
    text = json.dumps(environment, indent=2) + "\n"
    (folder / ENVIRONMENT).write_text(text, encoding="utf-8")
    return {
        "path": ARCHIVE,
        "verify": made["path"],
        "sha256": digest(archive),
        "bytes": archive.stat().st_size,
        "files": made["files"],
        "models": made["models"],
        "left_out": made["left_out"],
    }


def _first(name: str, models: list[str]) -> str:
    """The ensemble; the engine alone where there is none."""
    return name if name in models else models[0]


def _compressed(models: Path, archive: Path) -> None:
    """A tar of a repository, whole or none: times, owners and order are always the same."""
    aside = archive.with_name(f".{archive.name}.part")
    try:
        _write(models, aside)
        aside.replace(archive)
    except OSError as error:
        what = f"cannot write: {error.strerror or error}"
        raise BundleError(what, where=archive, mend="free space or mend permissions") from error
    finally:
        aside.unlink(missing_ok=True)


def _write(models: Path, archive: Path) -> None:
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as stream,
        # plain headers as far as they go; of a file of 8 GiB or more the size stands in one of PAX
        tarfile.open(mode="w", fileobj=stream, format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(models.rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(path.relative_to(models).as_posix())
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    tar.addfile(entry, file)
