"""Where a path's engine and its io.json lie: a bundle, an engine's folder, or a workspace."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import BundleError, ConfigError
from .signature import FILE, Signature

if TYPE_CHECKING:
    from .bundle import Manifest

BACKEND = "onnxruntime"
#: An engine's file, by the name it is stored under.
MODELS = ("model.onnx", "model.ort")
ARCHIVE = ".tar.zst"
#: The folder of io.json, the tokenizer and the checkpoint's other small files, in a bundle.
ASSETS = "model"
#: Of a device's folder: the link to the current version, and the engines that were built there.
CURRENT = "current"
REBUILT = "rebuilt"


@dataclass(frozen=True)
class Places:
    """The engine's file, the folder of io.json and tokenizer.json, and what to clean up.

    Of an engine of several graphs, `model` is the folder of their folders; of one in pipeline
    stages, `stages` are their files in order.
    """

    model: Path
    assets: Path
    stages: tuple[Path, ...] = ()
    stack: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Remove what was unpacked."""
        self.stack.close()


def locate(path: Path, engine: Path | None = None) -> Places:
    """Find an ONNX Runtime engine at `path`; `engine` is the folder of one to take for a bundle's.

    An archive is unpacked into a temporary folder, which `Places.close` removes. The digests of
    what is opened of a bundle are checked, packed or not; its golden outputs are not.

    Raises:
        ConfigError: there is no such engine.
        BundleError: the archive or its manifest is not what it should be, or the engine's files
            and those beside it are not what the manifest says.
    """
    if engine is not None:
        found = _instead(engine, path)
        if found is None:
            raise ConfigError(f"no engine in {engine} for the bundle in {path}")
        return found
    if path.is_file() and path.name.endswith(ARCHIVE):
        return _archive(path)
    found = next((place for place in _candidates(path) if place is not None), None)
    if found is None:
        raise ConfigError(
            f"nothing at {path} can be run here",
            mend="give a bundle, a folder with io.json and model.onnx, or a workspace with an "
            f"{BACKEND} engine",
        )
    return found


def _candidates(path: Path) -> Iterator[Places | None]:
    yield _bundle(path)
    for folder in (path, path / "engine" / BACKEND, path / BACKEND):
        yield _engine(folder, folder)
    yield _only_archive(path)
    yield _installed(path)


def _engine(folder: Path, assets: Path) -> Places | None:
    if not (assets / FILE).is_file():
        return None
    model = model_of(folder)
    if model is None:
        graphs = Signature.load(assets).components
        whole = bool(graphs) and all(model_of(folder / graph) for graph in graphs)
        model = folder if whole else None
    return Places(model, assets) if model else None


def model_of(folder: Path) -> Path | None:
    """The engine's file in a folder, None when it has none."""
    return next((folder / name for name in MODELS if (folder / name).is_file()), None)


def _installed(root: Path) -> Places | None:
    """The current version of a device's folder, and the engine that was built for it there."""
    current = root / CURRENT
    if not current.is_symlink():
        return None
    folder = current.resolve()
    return _instead(root / REBUILT / folder.name / BACKEND, folder) or _bundle(folder)


def _instead(engine: Path, bundle: Path) -> Places | None:
    """An engine that was built here, with the assets of the bundle that it was built from."""
    found = _engine(engine, bundle / ASSETS)
    manifest = _manifest(bundle) if found else None
    if manifest:
        _refuse_changed(bundle, manifest, (ASSETS,))
    return found


def _bundle(folder: Path, *, checked: bool = False) -> Places | None:
    """The engine of an unpacked bundle; `checked`: its digests were, on the way here."""
    manifest = _manifest(folder)
    if manifest is None:
        return None
    for engine in manifest.engines:
        if engine.backend == BACKEND:
            if not checked:
                _refuse_changed(folder, manifest, (engine.path, *engine.stages, ASSETS))
            root = folder / engine.path
            found = (
                _staged(folder, root, engine.stages)
                or _engine(root, root)
                or _engine(root, folder / ASSETS)
            )
            if found:
                return found
    names = ", ".join(engine.backend for engine in manifest.engines) or "none"
    raise BundleError(f"no {BACKEND} engine in the bundle, only {names}", where=folder)


def _manifest(folder: Path) -> "Manifest | None":
    from .bundle import MANIFEST, Manifest

    return Manifest.load(folder) if (folder / MANIFEST).is_file() else None


def _refuse_changed(folder: Path, manifest: "Manifest", opened: Sequence[str]) -> None:
    """Refuse what is not as the manifest says in the folders that are opened.

    By their bytes at every start, about a second a gigabyte: whoever changes a file can keep its
    size and its time.
    """
    from .bundle import differences

    wrong = next(differences(folder, manifest, opened), None)
    if wrong:
        mend = "take the bundle from its archive again"
        raise BundleError(f"{wrong[0]!r} {wrong[1]}", where=folder, mend=mend)


def _staged(folder: Path, root: Path, stages: Sequence[str]) -> Places | None:
    files = [file for stage in stages if (file := model_of(folder / stage))]
    whole = bool(files) and len(files) == len(stages)
    return Places(root, folder / ASSETS, tuple(files)) if whole else None


def _only_archive(folder: Path) -> Places | None:
    archives = sorted(folder.glob(f"*{ARCHIVE}")) if folder.is_dir() else []
    return _archive(archives[0]) if len(archives) == 1 else None


def _archive(path: Path) -> Places:
    from .bundle import unpack

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmdeploy-")))
        found = _bundle(unpack(path, folder / "bundle"), checked=True)
        if found is None:
            raise BundleError("no manifest in the archive", where=path)
        return replace(found, stack=stack.pop_all())
