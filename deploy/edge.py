"""The edge packager: engines, portable graph, tokenizer and golden runs in one archive."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.numpy import save

from .. import BundleError, ConfigError
from .archive import Source
from .archive import pack as pack_archive
from .bundle import MANIFEST, Engine, File, Golden, Manifest, digest
from .contents import Arrays, Case, Contents
from .places import ARCHIVE, ASSETS
from .provenance import write
from .requirements import derive
from .sbom import NAME as BILL
from .sbom import bill
from .signature import Signature

#: Files of a stage that say how it was made, not what it is.
_RECORDS = frozenset(["stage.json"])


def pack(contents: Contents, folder: Path) -> dict[str, Any]:
    """Write `folder`/NAME-VERSION.tar.zst; give its path, sha256, bytes and number of files.

    Its provenance is written beside it, under the name that `provenance` gives.

    Raises:
        ConfigError: the name or the version is not fit for a file's name.
        BundleError: there is no engine or no golden run, or the archive cannot be written.
    """
    if not contents.engines or not contents.golden:
        lacking = "an engine" if not contents.engines else "golden runs"
        raise BundleError(f"a bundle without {lacking}", where=contents.name, mend="build first")
    files = gather(contents)
    listed = {name: _file(files[name]) for name in sorted(files)}
    files[BILL] = bill(contents, listed)
    listed[BILL] = _file(files[BILL])
    text = manifest(contents, listed).encoded()
    archive = folder / f"{contents.name}-{contents.version}{ARCHIVE}"
    pack_archive({MANIFEST: text, **files}, archive, first=[MANIFEST])
    sha256 = digest(archive)
    return {
        "path": archive.name,
        "provenance": write(contents, archive, sha256).name,
        "sha256": sha256,
        "bytes": archive.stat().st_size,
        "files": len(files) + 1,
    }


def gather(contents: Contents) -> dict[str, Source]:
    """Every file of the bundle but its manifest, by name.

    An engine's file that is the same as the one of that name in `model/` is not packed again.
    """
    files: dict[str, Source] = dict(_below(contents.assets, ASSETS, top=True))
    for backend, folder in contents.engines.items():
        for name, path in _below(folder, f"engines/{backend}").items():
            twin = files.get(f"{ASSETS}/{path.name}")
            if not (isinstance(twin, Path) and _same(path, twin)):
                files[name] = path
    if contents.portable:
        files |= _below(contents.portable, "portable")
    for index, case in enumerate(contents.golden):
        files[f"golden/{index}.inputs.safetensors"] = _arrays(case.feed)
        files[f"golden/{index}.outputs.safetensors"] = _arrays(case.outputs)
    files |= {f"report/{path.name}": path for path in contents.reports}
    files |= {f"licences/{path.name}": path for path in contents.licences}
    return files


def manifest(contents: Contents, files: Mapping[str, File]) -> Manifest:
    """The manifest of `files`.

    Raises:
        ConfigError: something the caller chose does not fit the schema.
    """
    try:
        return Manifest(
            name=contents.name,
            version=contents.version,
            created=contents.when,
            task=Signature.load(contents.assets).task,
            files={name: files[name] for name in sorted(files)},
            lineage=contents.lineage,
            versions=dict(sorted(contents.versions.items())),
            engines=tuple(_engine(contents, backend) for backend in contents.engines),
            portable="portable" if contents.portable else None,
            golden=tuple(_golden(index, case) for index, case in enumerate(contents.golden)),
            tolerance=contents.tolerance,
            licences=tuple(sorted(name for name in files if name.startswith("licences/"))),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        at = ".".join(map(str, problem["loc"])) or "the manifest"
        raise ConfigError(f"cannot be packed: {at}: {problem['msg']}", where="[bundle]") from error


def _below(folder: Path, prefix: str, *, top: bool = False) -> dict[str, Path]:
    """Files of a folder by their name in the bundle; of the top only, graphs are left out."""
    found = sorted(path for path in (folder.glob("*") if top else folder.rglob("*")))
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path
        for path in found
        if not path.is_dir() and path.name not in _RECORDS and not (top and _weighs(path))
    }


def _weighs(path: Path) -> bool:
    """Whether a file of the export holds the float graph or weights, which a bundle leaves out."""
    return path.name.startswith("model.onnx") or path.suffix in (".onnx", ".data", ".safetensors")


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and digest(one) == digest(other)


def _arrays(arrays: Arrays) -> bytes:
    return save({name: arrays[name].copy(order="C") for name in sorted(arrays)})


def _file(source: Source) -> File:
    if isinstance(source, bytes):
        return File(sha256=hashlib.sha256(source).hexdigest(), size=len(source))
    return File(sha256=digest(source), size=source.stat().st_size)


def _engine(contents: Contents, backend: str) -> Engine:
    return Engine(
        backend=backend,
        path=f"engines/{backend}",
        executed=backend in contents.executed,
        requires=contents.requires.get(backend)
        or derive(backend, contents.engines[backend], contents.versions),
        recipe=contents.recipes.get(backend) if contents.portable else None,
    )


def _golden(index: int, case: Case) -> Golden:
    return Golden(
        inputs=f"golden/{index}.inputs.safetensors",
        outputs=f"golden/{index}.outputs.safetensors",
        texts=tuple(case.texts),
        max_length=case.max_length,
    )
