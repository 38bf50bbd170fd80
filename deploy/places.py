"""Where a path's engine and its io.json lie: a bundle, an engine's folder, or a workspace."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import BundleError, ConfigError
from .signature import FILE, Signature

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

    An archive is unpacked into a temporary folder, which `Places.close` removes; its digests are
    checked on the way, its golden outputs are not.

    Raises:
        ConfigError: there is no such engine.
        BundleError: the archive or its manifest is not what it should be.
    """
    if engine is not None:
        found = _engine(engine, path / ASSETS)
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


def _candidates(path: Path) -> tuple[Places | None, ...]:
    return (
        _bundle(path),
        _engine(path, path),
        _engine(path / "engine" / BACKEND, path / "engine" / BACKEND),
        _engine(path / BACKEND, path / BACKEND),
        _only_archive(path),
        _installed(path),
    )


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
    return _engine(root / REBUILT / folder.name / BACKEND, folder / ASSETS) or _bundle(folder)


def _bundle(folder: Path) -> Places | None:
    from .bundle import MANIFEST, Manifest

    if not (folder / MANIFEST).is_file():
        return None
    manifest = Manifest.load(folder)
    for engine in manifest.engines:
        if engine.backend == BACKEND:
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
        found = _bundle(unpack(path, folder / "bundle"))
        if found is None:
            raise BundleError("no manifest in the archive", where=path)
        return replace(found, stack=stack.pop_all())
