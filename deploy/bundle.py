"""manifest.json: every file of a bundle with its digest, and where it all comes from."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from .. import BundleError
from .archive import Limits, reading
from .misfit import misfit
from .names import Names, problem
from .unpack import unpack as unpack_archive

MANIFEST = "manifest.json"
SIGNATURE = "bundle.sig"
#: Files that the manifest does not list: itself, and what signs it.
UNLISTED = frozenset([MANIFEST, SIGNATURE])
#: Greatest manifest and greatest signature that are read.
MAX_MANIFEST = 16 << 20


def _fit(name: str) -> str:
    why = problem(name)
    if why:
        raise ValueError(f"the name {name[:120]!r} {why}")
    return name


Name = Annotated[str, AfterValidator(_fit)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=80)]


class Record(BaseModel):
    """A frozen part of the manifest; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Record):
    """A file's bytes."""

    sha256: Sha256
    size: int = Field(ge=0)


class Requires(Record):
    """What a machine must have to run an engine; what is empty is not asked for."""

    packages: dict[str, str] = {}
    compute_capabilities: tuple[str, ...] = ()
    driver: str | None = None
    cpu_features: tuple[str, ...] = ()
    memory_bytes: int | None = Field(default=None, ge=0)


class Recipe(Record):
    """How an engine is built again from the portable graph: precision, shapes, options."""

    precision: str
    profile: dict[str, tuple[int, int, int]] = {}
    options: dict[str, JsonValue] = {}


class Engine(Record):
    """An engine's folder; `executed` says whether it ran where the bundle was made.

    `stages` are the folders of its pipeline stages in order, where it lies in several.
    """

    backend: Label
    path: Name
    stages: tuple[Name, ...] = ()
    executed: bool
    requires: Requires = Requires()
    recipe: Recipe | None = None


class Golden(Record):
    """Inputs and outputs of one run of the engine (safetensors), and the texts they came from.

    `graph` is the one of the engine's graphs that was run, where it has several.
    """

    inputs: Name
    outputs: Name
    texts: tuple[str | tuple[str, str], ...] = ()
    max_length: int | None = Field(default=None, ge=1)
    graph: str = ""


class Tolerance(Record):
    """How far an engine may be from the golden outputs; at least one limit is stated.

    `max_relative_error` bounds the largest error of any element, relative to the largest magnitude
    of that golden output; `min_cosine` bounds the cosine of each output with its golden twin.
    """

    max_relative_error: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    min_cosine: float | None = Field(default=None, ge=-1, le=1)

    @model_validator(mode="after")
    def _states_a_limit(self) -> "Tolerance":
        if self.max_relative_error is None and self.min_cosine is None:
            raise ValueError("a tolerance states no limit")
        return self


class Lineage(Record):
    """What the bundle was made from: digests of the checkpoint, the samples and the stages."""

    checkpoint: str
    checkpoint_digest: str
    samples_digest: str | None = None
    stages: dict[str, str] = {}


class Manifest(Record):
    """What a bundle is: anything in it that does not fit this is refused."""

    schema_version: Literal[1] = 1
    name: Label
    version: Label
    created: str | None = None
    task: str
    files: dict[Name, File]
    lineage: Lineage
    versions: dict[str, str] = {}
    engines: tuple[Engine, ...] = ()
    portable: Name | None = None
    golden: tuple[Golden, ...] = ()
    tolerance: Tolerance
    licences: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _names_what_it_lists(self) -> "Manifest":
        known = Names()
        for name in self.files:
            other = known.add(name)
            if other:
                raise ValueError(f"{other!r} and {name!r} would be one file")
        named = [name for case in self.golden for name in (case.inputs, case.outputs)]
        unlisted = [name for name in (*named, *self.licences) if name not in self.files]
        folders = [engine.path for engine in self.engines]
        folders += [self.portable] if self.portable else []
        for folder in folders:
            if not any(name.startswith(folder + "/") for name in self.files):
                unlisted.append(folder)
        if unlisted:
            raise ValueError(f"{unlisted[0]!r} is named but not among the files")
        return self

    @property
    def total_bytes(self) -> int:
        """The size of all listed files."""
        return sum(file.size for file in self.files.values())

    def encoded(self) -> bytes:
        """The bytes of manifest.json."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    @classmethod
    def parse(cls, text: bytes, where: Path) -> "Manifest":
        """Read manifest.json's bytes.

        Raises:
            BundleError: they are not JSON, or do not fit the schema.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            what = f"the manifest does not fit: {misfit(error)}"
            raise BundleError(what, where=where) from error

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read `folder`'s manifest.json.

        Raises:
            BundleError: it is missing, too large or not what it should be.
        """
        path = folder / MANIFEST
        if path.is_symlink() or not path.is_file():
            raise BundleError("no manifest.json", where=folder, mend="give a bundle")
        if path.stat().st_size > MAX_MANIFEST:
            raise BundleError(f"the manifest has more than {MAX_MANIFEST:,} bytes", where=path)
        return cls.parse(path.read_bytes(), path)


def manifest_of(archive: Path) -> Manifest:
    """The manifest of an archive, which is its first entry; nothing else is read.

    Raises:
        BundleError: it is no bundle.
    """
    with reading(archive) as entries:
        first = next(entries, None)
        if first is None or first.name != MANIFEST or first.size > MAX_MANIFEST:
            raise BundleError("the archive does not start with a manifest", where=archive)
        return Manifest.parse(b"".join(first.chunks()), archive)


def unpack(archive: Path, folder: Path, check: Callable[[Path], None] | None = None) -> Path:
    """Unpack a bundle into `folder` (new), where it is only put when every digest is right.

    `check` may raise to refuse it for a reason of its own.

    Raises:
        BundleError: it is no bundle, or not what its manifest says.
    """

    def right(aside: Path) -> None:
        wrong = next(differences(aside, Manifest.load(aside)), None)
        if wrong:
            raise BundleError(f"{wrong[0]!r} {wrong[1]}", where=archive)
        if check:
            check(aside)

    return extract(archive, folder, right)


def extract(archive: Path, folder: Path, check: Callable[[Path], None] | None = None) -> Path:
    """Unpack a bundle within the limits its manifest sets; whether its files are right is unknown.

    Raises:
        BundleError: it is no bundle, or larger than its manifest says.
    """
    manifest = manifest_of(archive)
    entries = len(manifest.files) + len(UNLISTED)
    limits = Limits(entries, manifest.total_bytes + 2 * MAX_MANIFEST, ratio=None)
    unpack_archive(archive, folder, limits, check)
    return folder


def differences(
    folder: Path, manifest: Manifest, within: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Names and what is wrong with them: missing, added, changed, or not a plain file.

    `within` are the folders in it that are looked at, all where none is named.
    """
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    starts = tuple(f"{each}/" for each in within) or ("",)
    for name, path in there.items():
        if not f"{name}/".startswith(starts):
            continue
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            yield name, "is not a plain file"
        elif path.is_file() and name not in manifest.files and name not in UNLISTED:
            yield name, "was added"
    listed = {name: file for name, file in manifest.files.items() if name.startswith(starts)}
    for name, file in listed.items():
        path = there.get(name)
        if path is None or path.is_symlink() or not path.is_file():
            yield name, "is missing"
        elif path.stat().st_size != file.size or digest(path) != file.sha256:
            yield name, "was changed"


def digest(path: Path) -> str:
    """sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_schema(path: Path) -> None:
    """Write the JSON schema of manifest.json."""
    text = json.dumps(Manifest.model_json_schema(), indent=2)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_schema(Path(__file__).with_name("manifest.schema.json"))
