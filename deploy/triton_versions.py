"""Versions in a repository that a Triton server runs from: publish one, switch, go back.

The parts of two versions are loaded side by side; the ensemble names the version of its parts, so
that the switch is the reload of the ensemble alone, and requests under way end on the old one.
"""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .. import BundleError, ConfigError
from . import triton_config as configs
from .triton import CONFIG
from .unpack import flush, sync


def versions(repository: Path, model: str) -> list[int]:
    """The versions of a model that lie in a repository, oldest first."""
    folder = repository / model
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def publish(packed: Path, repository: Path, *, keep: int = 2, wait: float = 600.0) -> list[str]:
    """Add the version in `packed` (a repository) to a running one; the models to load, in order.

    The ensemble is last: until it is loaded, the version before serves. The `keep` newest versions
    stay, the others are removed, but for this one and the one that the repository serves now.

    Raises:
        ConfigError: nothing is packed there, the version is there already, or takes or gives other
            arrays than before.
        BundleError: the repository cannot be written, or another holds it for `wait` seconds.
    """
    fresh = {path.name: _config(path) for path in _packed(packed)}
    models = sorted(fresh, key=lambda name: fresh[name].platform == "ensemble")
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with _locked(repository, wait):
            serving = _serving(repository, models[-1])
            begun = _begun(fresh[models[-1]], repository / models[-1], serving)
            for name in models:
                _admit(fresh[name], packed / name, repository / name, begun)
            for name in models:
                _add(fresh[name], packed / name, repository / name, keep, serving)
    except OSError as error:
        what = f"cannot publish: {error.strerror or error}"
        raise BundleError(what, where=repository, mend="free space or mend permissions") from error
    return models


def switch(repository: Path, ensemble: str, version: int, *, wait: float = 600.0) -> None:
    """Have the ensemble run a version that is there; load it again for that to happen.

    An engine alone, which no ensemble names, is switched itself.

    Raises:
        ConfigError: there is no such version, or it is of a model that is a part of an ensemble.
        BundleError: the repository cannot be written, or another holds it for `wait` seconds.
    """
    if not repository.is_dir():
        raise ConfigError("no repository there", where=repository)
    try:
        with _locked(repository, wait):
            source = repository / ensemble / str(version) / CONFIG
            if not source.is_file():
                there = ", ".join(map(str, versions(repository, ensemble))) or "none"
                raise ConfigError(
                    f"{ensemble} has no version {version}", mend=f"there are: {there}"
                )
            whole = _whole(repository, ensemble)
            if whole:
                what = f"{ensemble} is a part of {whole}, which names the version that it runs"
                raise ConfigError(what, where=repository, mend=f"switch {whole}")
            _replace(repository / ensemble / CONFIG, source.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"cannot switch: {error.strerror or error}"
        raise BundleError(what, where=repository, mend="free space or mend permissions") from error


def _packed(folder: Path) -> list[Path]:
    """The models' folders in what a packager wrote."""
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not found or not all((path / CONFIG).is_file() for path in found):
        raise ConfigError(
            "no packed Triton repository there",
            where=folder,
            mend="give NAME-VERSION of `bundle --kind triton`, or the `models` in it",
        )
    return found


@contextmanager
def _locked(repository: Path, wait: float) -> Generator[None]:
    """Hold the repository; two that write at once would each leave out the other's versions."""
    lock = FileLock(repository / ".lock", timeout=wait)
    try:
        lock.acquire()
    except Timeout as error:
        raise BundleError("another publishes or switches there", where=repository) from error
    try:
        yield
    finally:
        lock.release()


def _whole(repository: Path, model: str) -> str | None:
    """The ensemble that a model is a part of, if any."""
    named = f'model_name: "{model}"'
    configured = sorted(repository.glob(f"*/{CONFIG}"))
    found = (path for path in configured if named in path.read_text(encoding="utf-8"))
    return next((path.parent.name for path in found), None)


def _begun(last: Any, folder: Path, serving: set[int]) -> bool:
    """Whether what lies there of this version is of a publishing that was cut off: nobody runs it.

    The last model is what has others run theirs.
    """
    number = last.version_policy.specific.versions[0]
    return number not in serving and not (folder / str(number)).exists()


def _admit(config: Any, packed: Path, folder: Path, begun: bool) -> None:
    """Refuse a version whose model would not fit beside those that are loaded."""
    number = config.version_policy.specific.versions[0]
    if (folder / str(number)).exists() and not begun:
        there = versions(folder.parent, folder.name)
        mend = f"switch to it, or pack it as version {there[-1] + 1}"
        raise ConfigError(f"version {number} of {folder.name} is there already", mend=mend)
    if (folder / CONFIG).is_file() and _shape(_config(folder)) != _shape(config):
        raise ConfigError(
            f"{packed.name} takes or gives other arrays than the version before",
            where=folder,
            mend="pack it under a name of its own",
        )


def _serving(repository: Path, last: str) -> set[int]:
    """The version that answers now: what the ensemble names, or the newest of an engine alone."""
    if not (repository / last / CONFIG).is_file():
        return set()
    config = _config(repository / last)
    named = {step.model_version for step in config.ensemble_scheduling.step}
    return named or {*sorted(config.version_policy.specific.versions)[-1:]}


def _add(config: Any, packed: Path, folder: Path, keep: int, serving: set[int]) -> None:
    number = config.version_policy.specific.versions[0]
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{number}.part"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(packed / str(number), aside)
    if (packed / "warmup").is_dir():
        shutil.copytree(packed / "warmup", folder / "warmup", dirs_exist_ok=True)
        flush(folder / "warmup")
    flush(aside)
    if (folder / str(number)).exists():
        shutil.rmtree(folder / str(number))  # of a publishing that was cut off
    aside.rename(folder / str(number))
    sync(folder)
    there = versions(folder.parent, folder.name)
    kept = sorted({*there[-keep:], number, *(serving & {*there})})
    if config.platform != "ensemble":
        config.version_policy.specific.ClearField("versions")
        config.version_policy.specific.versions.extend(kept)
    _replace(folder / CONFIG, configs.text(config))
    for old in sorted({*there} - {*kept}):
        shutil.rmtree(folder / str(old))


def _config(folder: Path) -> Any:
    path = folder / CONFIG
    try:
        return configs.parse(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise ConfigError("no config.pbtxt", where=folder, mend="pack it again") from error


def _shape(config: Any) -> tuple[Any, ...]:
    """What must be equal for two versions to be loaded under one configuration."""
    tensors = [
        (tensor.name, tensor.data_type, tuple(tensor.dims))
        for tensor in (*config.input, *config.output)
    ]
    return (
        config.platform,
        config.backend,
        config.max_batch_size,
        config.default_model_filename,
        tensors,
    )


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    aside.replace(path)
    sync(path.parent)
