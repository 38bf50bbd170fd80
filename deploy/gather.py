"""The files of a release by their names in a bundle, and the manifest and bill that list them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from safetensors.numpy import save

from .. import BundleError, ConfigError
from .archive import Source
from .bundle import MANIFEST, Engine, File, Golden, Manifest, digest
from .contents import Arrays, Case, Contents
from .misfit import misfit
from .places import ASSETS
from .requirements import derive
from .sbom import NAME as BILL
from .sbom import bill
from .signature import Signature

#: Files of a stage that say how it was made, not what it is.
_RECORDS = frozenset(["stage.json"])
#: What an export holds of the float model, which a bundle leaves out.
_WEIGHTS = frozenset([".onnx", ".data", ".safetensors", ".bin", ".gguf", ".pt", ".h5", ".msgpack"])


def shared(contents: Contents) -> dict[str, Source]:
    """What every kind of bundle holds: io.json and tokenizer, golden runs, report, licences.

    Raises:
        BundleError: there is no engine or no golden run.
    """
    if not contents.engines or not contents.golden:
        lacking = "an engine" if not contents.engines else "golden runs"
        raise BundleError(f"a bundle without {lacking}", where=contents.name, mend="build first")
    small = below(contents.assets, ASSETS, deep=False)
    files: dict[str, Source] = {
        name: path for name, path in small.items() if path.suffix not in _WEIGHTS
    }
    for index, case in enumerate(contents.golden):
        files[f"golden/{index}.inputs.safetensors"] = _arrays(case.feed)
        files[f"golden/{index}.outputs.safetensors"] = _arrays(case.outputs)
    files |= {f"report/{path.name}": path for path in contents.reports}
    files |= {f"licences/{path.name}": path for path in contents.licences}
    return files


def below(folder: Path, prefix: str, *, deep: bool = True) -> dict[str, Path]:
    """A folder's files by their names in the bundle; not `deep`, those of its top alone."""
    found = folder.rglob("*") if deep else folder.glob("*")
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(found)
        if not path.is_dir() and path.name not in _RECORDS
    }


def sealed(
    contents: Contents,
    files: Mapping[str, Source],
    engines: Sequence[Engine],
    portable: str | None = None,
) -> dict[str, Source]:
    """The same files with their bill and, first of all, the manifest.

    Raises:
        ConfigError: something the caller chose does not fit the manifest's schema.
    """
    listed = {name: _file(files[name]) for name in sorted(files)}
    text = bill(contents, listed)
    listed[BILL] = _file(text)
    made = _manifest(contents, listed, engines, portable)
    return {MANIFEST: made.encoded(), BILL: text, **files}


def engine(contents: Contents, backend: str, path: str, stages: Sequence[str] = ()) -> Engine:
    """The manifest's record of an engine whose files lie in `path`, or below it in `stages`."""
    return Engine(
        backend=backend,
        path=path,
        stages=tuple(stages),
        executed=backend in contents.executed,
        requires=contents.requires.get(backend)
        or derive(backend, contents.engines[backend], contents.versions),
        recipe=contents.recipes.get(backend) if contents.portable else None,
    )


def _manifest(
    contents: Contents, files: Mapping[str, File], engines: Sequence[Engine], portable: str | None
) -> Manifest:
    try:
        return Manifest(
            name=contents.name,
            version=contents.version,
            created=contents.when,
            task=Signature.load(contents.assets).task,
            files={name: files[name] for name in sorted(files)},
            lineage=contents.lineage,
            versions=dict(sorted(contents.versions.items())),
            engines=tuple(engines),
            portable=portable,
            golden=tuple(_golden(index, case) for index, case in enumerate(contents.golden)),
            tolerance=contents.tolerance,
            licences=tuple(sorted(name for name in files if name.startswith("licences/"))),
        )
    except ValidationError as error:
        what = f"cannot be packed: {misfit(error, 'the manifest')}"
        raise ConfigError(what, where="[bundle]") from error


def _golden(index: int, case: Case) -> Golden:
    return Golden(
        inputs=f"golden/{index}.inputs.safetensors",
        outputs=f"golden/{index}.outputs.safetensors",
        texts=tuple(case.texts),
        max_length=case.max_length,
        graph=case.graph,
    )


def _arrays(arrays: Arrays) -> bytes:
    return save({name: arrays[name].copy(order="C") for name in sorted(arrays)})


def _file(source: Source) -> File:
    if isinstance(source, bytes):
        return File(sha256=hashlib.sha256(source).hexdigest(), size=len(source))
    return File(sha256=digest(source), size=source.stat().st_size)
