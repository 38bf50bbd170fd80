"""A bundle as an OCI image layout, by the CNCF ModelPack specification: a layer a file.

https://github.com/modelpack/model-spec (docs/spec.md, docs/config.md, schema/config-schema.json)
and the OCI image layout. Layers are raw, so a layer's digest is the manifest's own of that file,
and a registry stores once what two versions share.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from .. import BundleError
from .archive import Source
from .archive import pack as pack_archive
from .bundle import MANIFEST, MAX_MANIFEST, SIGNATURE, Manifest, digest, unpack
from .contents import Contents
from .edge import whole
from .misfit import misfit
from .names import Names, problem
from .places import ARCHIVE

MODEL = "application/vnd.cncf.model"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
REFERENCE = "org.opencontainers.image.ref.name"
LAYOUT = "oci-layout"
INDEX = "index.json"
SUFFIX = ".oci"
#: A bundle's files by what they are; what is not named here configures the weights.
_WEIGHTS = frozenset([".onnx", ".ort", ".data", ".plan", ".engine", ".bin"])
_WORDS = ("report/", "licences/", "sbom.")


class Descriptor(BaseModel):
    """What is read of a descriptor; other keys are the specification's."""

    model_config = ConfigDict(frozen=True, strict=True)

    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: int = Field(ge=0)
    annotations: dict[str, str] | None = None


class Image(BaseModel):
    """What is read of an image's manifest; other keys are the specification's."""

    model_config = ConfigDict(frozen=True, strict=True)

    kind: Literal["application/vnd.cncf.model.manifest.v1+json"] = Field(alias="artifactType")
    config: Descriptor
    layers: list[Descriptor]


def pack(contents: Contents, folder: Path) -> dict[str, Any]:
    """Write `folder`/NAME-VERSION.oci, an OCI image layout of all that an edge bundle holds.

    Raises:
        ConfigError: the name or the version is not fit for a file's name.
        BundleError: there is no engine or no golden run.
    """
    files = whole(contents)
    manifest = Manifest.parse(_bytes(files[MANIFEST]), folder)
    target = folder / f"{contents.name}-{contents.version}{SUFFIX}"
    image = write(files, manifest, target)
    return {
        "path": target.name,
        "sha256": image["digest"].removeprefix("sha256:"),
        "bytes": sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
        "files": len(files),
    }


def from_archive(archive: Path, folder: Path) -> dict[str, Any]:
    """The same of an archive that is made, its signature with it; the image's descriptor.

    Raises:
        BundleError: it is no sound bundle.
    """
    unpacked = unpack(archive, folder / "bundle")
    files: dict[str, Source] = {
        path.relative_to(unpacked).as_posix(): path
        for path in sorted(unpacked.rglob("*"))
        if path.is_file()
    }
    return write(files, Manifest.load(unpacked), folder / "layout")


def write(files: Mapping[str, Source], manifest: Manifest, folder: Path) -> dict[str, Any]:
    """Write an image layout of `files` into `folder` (new); the descriptor of its image."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    first = [name for name in (MANIFEST, SIGNATURE) if name in files]
    order = [*first, *sorted(files.keys() - set(first))]
    layers = [_layer(name, files[name], blobs) for name in order]
    config = _blob(_encoded(_config(manifest, layers)), f"{MODEL}.config.v1+json", blobs)
    image = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": f"{MODEL}.manifest.v1+json",
        "config": config,
        "layers": layers,
        "annotations": {TITLE: manifest.name, "org.opencontainers.image.version": manifest.version},
    }
    found = _blob(_encoded(image), IMAGE, blobs)
    named = {**found, "annotations": {REFERENCE: manifest.version}}
    media = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": media, "manifests": [named]}
    (folder / INDEX).write_bytes(_encoded(index))
    (folder / LAYOUT).write_bytes(_encoded({"imageLayoutVersion": "1.0.0"}))
    return found


def is_layout(path: Path) -> bool:
    """Whether a folder is an OCI image layout."""
    return (path / LAYOUT).is_file() and (path / INDEX).is_file()


def image_of(layout: Path) -> tuple[dict[str, Any], bytes]:
    """The descriptor and the bytes of a layout's one image.

    Raises:
        BundleError: it has not one, or another than its digest says.
    """
    index = read_json((layout / INDEX).read_bytes(), layout / INDEX)
    listed = index.get("manifests")
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        raise BundleError("not the layout of one image", where=layout)
    return listed[0], blob(layout, listed[0]).read_bytes()


def blob(layout: Path, descriptor: Mapping[str, Any]) -> Path:
    """A blob's file, when its bytes are those of the descriptor.

    Raises:
        BundleError: it is missing or changed.
    """
    sha256, size = described(descriptor, layout)
    path = layout / "blobs" / "sha256" / sha256
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"the blob {sha256[:12]} is missing", where=layout)
    if path.stat().st_size != size or digest(path) != sha256:
        raise BundleError(f"the blob {sha256[:12]} was changed", where=layout)
    return path


def described(descriptor: Mapping[str, Any], where: object) -> tuple[str, int]:
    """A descriptor's sha256 and size.

    Raises:
        BundleError: it has none.
    """
    try:
        found = Descriptor.model_validate(descriptor)
    except ValidationError as error:
        raise BundleError("a descriptor without sha256 and size", where=where) from error
    return found.digest.removeprefix("sha256:"), found.size


def layers_of(image: bytes, where: object) -> dict[str, dict[str, Any]]:
    """An image's layers by their files' names.

    Raises:
        BundleError: it is no image of a model, or a name is not fit for a bundle.
    """
    found = read_json(image, where)
    try:
        Image.model_validate(found)
    except ValidationError as error:
        what = f"not an image of a model: {misfit(error)}"
        raise BundleError(what, where=where, mend="push one with `push`") from error
    known, named = Names(), dict[str, dict[str, Any]]()
    for layer in found["layers"]:
        name = (layer.get("annotations") or {}).get(FILEPATH, "")
        why = problem(name)
        if why or known.add(name):
            what = f"the name {name[:120]!r} {why or 'is there twice'}"
            raise BundleError(what, where=where)
        named[name] = layer
    if MANIFEST not in named or described(named[MANIFEST], where)[1] > MAX_MANIFEST:
        raise BundleError("an image without the manifest of a bundle", where=where)
    return named


def unlayered(layout: Path, folder: Path) -> None:
    """Write a layout's files into `folder`, each with the bytes that its digest says.

    Raises:
        BundleError: it is not the layout of a model, or a blob is missing or changed.
    """
    _, image = image_of(layout)
    for name, layer in layers_of(image, layout).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(blob(layout, layer), path)


def archived(files: Mapping[str, Path], folder: Path) -> Path:
    """The files of an image as the archive that they came from, in `folder`.

    Raises:
        BundleError: they are not what their manifest says.
    """
    manifest = Manifest.parse(files[MANIFEST].read_bytes(), folder)
    for name, file in manifest.files.items():
        path = files.get(name)
        if path is None or digest(path) != file.sha256:
            raise BundleError(
                f"{name!r} is {'missing' if path is None else 'changed'}", where=folder
            )
    unknown = sorted(files.keys() - manifest.files.keys() - {MANIFEST, SIGNATURE})
    if unknown:
        raise BundleError(f"{unknown[0]!r} was added", where=folder)
    archive = folder / f"{manifest.name}-{manifest.version}{ARCHIVE}"
    first = [name for name in (MANIFEST, SIGNATURE) if name in files]
    pack_archive(dict(files), archive, first=first)
    return archive


def read_json(text: bytes, where: object) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BundleError: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError("not JSON", where=where) from error
    if not isinstance(found, dict):
        raise BundleError("not a JSON object", where=where)
    return found


def _config(manifest: Manifest, layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The model's configuration by config-schema.json: what is not known is left out."""
    recipes = [engine.recipe for engine in manifest.engines if engine.recipe]
    about = {"name": manifest.name, "version": manifest.version, "title": manifest.name}
    about |= {"createdAt": manifest.created} if manifest.created else {}
    kind: dict[str, Any] = {"architecture": "transformer", "format": "onnx"}
    kind |= {"precision": recipes[0].precision} if recipes else {}
    return {
        "descriptor": about,
        "config": kind,
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }


def _layer(name: str, source: Source, blobs: Path) -> dict[str, Any]:
    kind = "weight.config"
    if Path(name).suffix in _WEIGHTS:
        kind = "weight"
    elif name.startswith("golden/"):
        kind = "dataset"
    elif name.startswith(_WORDS):
        kind = "doc"
    found = _blob(source, f"{MODEL}.{kind}.v1.raw", blobs)
    return {**found, "annotations": {FILEPATH: name, TITLE: name}}


def _blob(source: Source, media: str, blobs: Path) -> dict[str, Any]:
    plain = isinstance(source, bytes)
    sha256 = hashlib.sha256(source).hexdigest() if plain else digest(source)
    path = blobs / sha256
    if plain:
        path.write_bytes(source)
    elif not path.exists():
        shutil.copyfile(source, path)
    return {"mediaType": media, "digest": f"sha256:{sha256}", "size": path.stat().st_size}


def _bytes(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _encoded(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
