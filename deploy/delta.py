"""A bundle as its difference from an installed one, for thin links.

An archive whose first entry is delta.json: which manifest it starts from, and for every file of
the new manifest whether it is a file of the old bundle, a patch of one, or whole.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from .. import BundleError
from . import patch
from .archive import Limits, Source, reading
from .archive import pack as pack_archive
from .bundle import (
    MANIFEST,
    MAX_MANIFEST,
    SIGNATURE,
    Label,
    Manifest,
    Name,
    Record,
    Sha256,
    differences,
    digest,
    unpack,
)
from .misfit import misfit
from .unpack import flush, sync
from .unpack import unpack as unpack_archive

FILE = "delta.json"
#: A patch must be at least this much smaller than the file to be worth applying.
WORTH = 0.9


class Patch(Record):
    """A file of the old bundle, and the entry with what turns it into the new file."""

    base: Name
    entry: Name


class Delta(Record):
    """What a delta starts from, and how each of the new bundle's files comes about."""

    schema_version: Literal[1] = 1
    name: Label
    version: Label
    base_version: Label
    base_manifest: Sha256
    same: dict[Name, Name]
    patches: dict[Name, Patch]
    whole: dict[Name, Name]


def make(old: Path, new: Path, folder: Path) -> dict[str, Any]:
    """Write the delta between two bundles' archives into `folder`; its path, sha256 and bytes.

    Raises:
        BundleError: one of them is no sound bundle, or they are of different models.
    """
    with tempfile.TemporaryDirectory(prefix="llmdeploy-", dir=folder) as temporary:
        before, after = unpack(old, Path(temporary) / "old"), unpack(new, Path(temporary) / "new")
        base, manifest = Manifest.load(before), Manifest.load(after)
        if base.name != manifest.name:
            raise BundleError(f"{manifest.name} is not a version of {base.name}", where=new)
        work = Path(temporary) / "work"
        work.mkdir()
        delta, files = _plan(before, base, after, manifest, work)
        name = f"{manifest.name}-{base.version}-to-{manifest.version}.delta.tar.zst"
        text = (delta.model_dump_json(indent=2) + "\n").encode()
        order = [FILE, MANIFEST]
        pack_archive({FILE: text, **files}, folder / name, first=order)
    path = folder / name
    return {"path": name, "sha256": digest(path), "bytes": path.stat().st_size}


def opened(archive: Path) -> tuple[Delta | None, Manifest]:
    """The manifest that an archive leads to, and the delta where it is one.

    Raises:
        BundleError: it is neither a bundle nor a delta.
    """
    with reading(archive) as entries:
        first = next(entries, None)
        if first is None or first.size > MAX_MANIFEST or first.name not in (FILE, MANIFEST):
            raise BundleError("the archive does not start with a manifest", where=archive)
        text = b"".join(first.chunks())
        if first.name == MANIFEST:
            return None, Manifest.parse(text, archive)
        delta = _parse(text, archive)
        second = next(entries, None)
        if second is None or second.size > MAX_MANIFEST or second.name != MANIFEST:
            raise BundleError("the delta has no manifest", where=archive)
        return delta, Manifest.parse(b"".join(second.chunks()), archive)


def apply(
    archive: Path, base: Path, folder: Path, check: Callable[[Path], None] | None = None
) -> None:
    """Make the new bundle in `folder` (new) from a delta and the installed bundle in `base`.

    Nothing is at `folder` before every digest is right. `check` may refuse it.

    Raises:
        BundleError: the delta starts from another bundle or one that was damaged, or what it gives
            is not right.
    """
    delta, manifest = opened(archive)
    if delta is None:
        raise BundleError("a bundle, not a delta", where=archive)
    if digest(base / MANIFEST) != delta.base_manifest:
        raise BundleError(
            f"the delta starts from another build of {delta.name} {delta.base_version}",
            where=base,
            mend="install the whole bundle",
        )
    bytes_ = manifest.total_bytes + 4 * MAX_MANIFEST
    limits = Limits(len(manifest.files) + 3, bytes_, ratio=None)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder.parent) as temporary:
        parts, aside = Path(temporary) / "parts", Path(temporary) / "bundle"
        unpack_archive(archive, parts, limits)
        aside.mkdir(mode=0o755)
        try:
            _assemble(delta, Manifest.load(parts), parts, base, aside)
            _right(aside, archive)
        except BundleError:
            _right(base, base, "the installed ", mend="install the whole bundle")
            raise
        if check:
            check(aside)
        flush(aside)
        aside.rename(folder)
        sync(folder.parent)


def _right(folder: Path, where: Path, of: str = "", mend: str = "") -> None:
    """Raise when a bundle's files are not what its manifest says."""
    wrong = next(differences(folder, Manifest.load(folder)), None)
    if wrong:
        raise BundleError(f"{of}{wrong[0]!r} {wrong[1]}", where=where, mend=mend)


def _plan(
    before: Path, base: Manifest, after: Path, manifest: Manifest, work: Path
) -> tuple[Delta, dict[str, Source]]:
    by_digest = {file.sha256: name for name, file in base.files.items()}
    same: dict[str, str] = {}
    patches: dict[str, Patch] = {}
    whole: dict[str, str] = {}
    files: dict[str, Source] = {MANIFEST: after / MANIFEST}
    if (after / SIGNATURE).is_file():
        files[SIGNATURE] = after / SIGNATURE
    for index, (name, file) in enumerate(manifest.files.items()):
        if file.sha256 in by_digest:
            same[name] = by_digest[file.sha256]
            continue
        made = work / str(index)
        if name in base.files and patch.make(before / name, after / name, made) < WORTH * file.size:
            patches[name] = Patch(base=name, entry=f"patches/{index}")
            files[f"patches/{index}"] = made
        else:
            whole[name] = f"whole/{index}"
            files[f"whole/{index}"] = after / name
    delta = Delta(
        name=manifest.name,
        version=manifest.version,
        base_version=base.version,
        base_manifest=digest(before / MANIFEST),
        same=same,
        patches=patches,
        whole=whole,
    )
    return delta, files


def _assemble(delta: Delta, manifest: Manifest, parts: Path, base: Path, aside: Path) -> None:
    for name in (MANIFEST, SIGNATURE):
        if (parts / name).is_file():
            shutil.copyfile(parts / name, aside / name)
    for name, file in manifest.files.items():
        target = aside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = delta.patches.get(name)
        try:
            if source:
                patch.apply(base / source.base, parts / source.entry, target, file.size)
            elif name in delta.same:
                shutil.copyfile(base / delta.same[name], target)
            elif name in delta.whole:
                shutil.copyfile(parts / delta.whole[name], target)
        except FileNotFoundError as error:
            raise BundleError(f"{name!r} comes from a file that is not there") from error


def _parse(text: bytes, where: Path) -> Delta:
    try:
        return Delta.model_validate_json(text)
    except ValidationError as error:
        what = f"the delta does not fit: {misfit(error)}"
        raise BundleError(what, where=where) from error
