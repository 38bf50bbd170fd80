"""Installing on a device: check, unpack, try, and only then switch; and going back."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import BundleError, ConfigError, Error
from .bundle import Manifest, differences, digest, unpack
from .delta import apply, opened
from .installed import Record, Root
from .places import BACKEND
from .signing import Trust, verify_signature
from .target import lacking_space, unmet
from .trial import SelfTest, selftest, tried
from .version import older

if TYPE_CHECKING:
    from .backend import Backend


@dataclass(frozen=True)
class Installed:
    """What is current now, and what was before."""

    name: str
    version: str
    path: str
    previous: str | None
    signed: bool
    rebuilt: bool
    selftest: dict[str, Any]


def install(
    bundle: Path,
    root: Path,
    *,
    trust: Trust | None = None,
    allow_downgrade: bool = False,
    keep: int = 2,
    wait: float = 600.0,
    check: SelfTest = selftest,
    backend: "Backend | None" = None,
) -> Installed:
    """Install a bundle, or a delta from the current one, under `root` and make it current.

    Where that cannot be, everything is left as it was.

    With `trust`, a bundle that it does not stand for is refused; without, so is an unsigned
    bundle after a signed one. `keep` versions stay for `rollback`. An engine that does not run
    here, or not as it should, is built again by the bundle's recipe with `backend`.

    Raises:
        ConfigError: it is of another model, older than what is current, or not signed.
        BundleError: it is no sound bundle, does not fit on this machine, or its self-test fails.
    """
    delta, manifest = opened(bundle)
    place = Root(root)
    try:
        with place.locked(wait):
            _admit(place, manifest, trust, allow_downgrade)
            folder = _unpacked(place, bundle, delta is not None, manifest, trust)
            tested = _tried(place, folder, check, backend)
            before = place.current if place.current != folder else _previous(place, folder)
            record = Record(
                name=manifest.name,
                version=manifest.version,
                previous=before,
                signed=trust is not None,
            )
            place.write(folder, record)
            place.switch(folder)
            place.prune(keep)
    except OSError as error:
        what = f"cannot install: {error.strerror or error}"
        raise BundleError(what, where=error.filename or root) from error
    return _installed(place, folder, record, tested)


def rollback(
    root: Path,
    *,
    wait: float = 600.0,
    check: SelfTest = selftest,
    backend: "Backend | None" = None,
) -> Installed:
    """Make the version that was current before current again, once it passes its self-test.

    Raises:
        BundleError: there is none, or it is not sound any more; what is current stays so.
    """
    place = Root(root)
    try:
        with place.locked(wait):
            chain = place.chain()
            if len(chain) < 2:
                raise BundleError("no version to go back to", where=root)
            folder = chain[1]
            record = place.record(folder)
            if record is None:
                raise BundleError("the version before has no record", where=folder)
            tested = tried(place.versions / folder, _built(place, folder), check, backend)
            place.switch(folder)
    except OSError as error:
        what = f"cannot go back: {error.strerror or error}"
        raise BundleError(what, where=error.filename or root) from error
    return _installed(place, folder, record, tested)


def _admit(place: Root, manifest: Manifest, trust: Trust | None, allow_downgrade: bool) -> None:
    """Refuse, before anything is written, what must not become current here."""
    now = place.record(place.current or "")
    if now and now.name != manifest.name:
        raise ConfigError(
            f"{now.name} is installed here, not {manifest.name}", mend="use another root"
        )
    if now and older(manifest.version, now.version) and not allow_downgrade:
        what = f"{manifest.version} is older than {now.version}, which is installed"
        raise ConfigError(what, mend="use rollback, or allow the downgrade by name")
    if now and now.signed and trust is None:
        raise ConfigError(
            "what is installed was signed", mend="give the key that this one is signed by"
        )
    for engine in manifest.engines:
        lack = unmet(engine.requires) if engine.backend == BACKEND else []
        if lack:
            raise BundleError(f"the bundle is not for this machine: {'; '.join(lack)}")


def _unpacked(
    place: Root, bundle: Path, is_delta: bool, manifest: Manifest, trust: Trust | None
) -> str:
    """Unpack beside the other versions, or find it there whole; its folder's name."""
    now = place.current
    if now and _same(place.versions / now, manifest) and _whole(place.versions / now, trust):
        return now  # by another archive: as a delta, or packed again
    name = f"{manifest.name}-{manifest.version}-{digest(bundle)[:12]}"
    number = 1
    folder = name
    while (place.versions / folder).exists():
        if _whole(place.versions / folder, trust):
            return folder
        number += 1
        folder = f"{name}.{number}"
    short = lacking_space(place.path, manifest.total_bytes)
    if short:
        raise BundleError(f"no room: {short}", where=place.path, mend="free space")
    target = place.versions / folder

    def check(aside: Path) -> None:
        try:
            verify_signature(aside, trust)
        except BundleError as error:  # where it was unpacked is gone again
            raise BundleError(error.what, where=bundle, mend=error.mend) from error

    if not is_delta:
        unpack(bundle, target, check)
    elif place.current is None:
        raise BundleError("a delta needs an installed version", mend="install the whole bundle")
    else:
        apply(bundle, place.versions / place.current, target, check)
    return folder


def _same(folder: Path, manifest: Manifest) -> bool:
    try:
        return Manifest.load(folder) == manifest
    except BundleError:
        return False


def _whole(folder: Path, trust: Trust | None) -> bool:
    try:
        verify_signature(folder, trust)
        return next(differences(folder, Manifest.load(folder)), None) is None
    except BundleError:
        return False


def _tried(place: Root, folder: str, check: SelfTest, backend: "Backend | None") -> dict[str, Any]:
    """The self-test's record; a version that fails it does not stay, unless something needs it."""
    try:
        return tried(place.versions / folder, _built(place, folder), check, backend)
    except Error:
        if folder not in place.chain():
            place.remove(folder)
        raise


def _built(place: Root, folder: str) -> Path:
    """Where the engine lies that was built here for a version."""
    return place.rebuilt / folder / BACKEND


def _previous(place: Root, folder: str) -> str | None:
    record = place.record(folder)
    return record.previous if record else None


def _installed(place: Root, folder: str, record: Record, tested: dict[str, Any]) -> Installed:
    return Installed(
        name=record.name,
        version=record.version,
        path=str(place.versions / folder),
        previous=record.previous,
        signed=record.signed,
        rebuilt=_built(place, folder).is_dir(),
        selftest=tested,
    )
