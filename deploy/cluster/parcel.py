"""An engine's files in Ray's object store: every node gets them, and none needs a shared disk."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray  # pyright: ignore[reportMissingImports]

from ..places import ASSETS, Places
from ..signature import FILE

#: File name in the parcel -> reference to its bytes (uint8).
Parcel = Mapping[str, Any]

ENGINE = "engine"
#: What an assets folder may hold of a model: the engine's own folder has what is run.
_WEIGHTS = frozenset([".onnx", ".ort", ".data", ".safetensors", ".bin", ".gguf", ".plan"])


def sent(found: Places) -> Parcel:
    """Put tokenizer, io.json and engine into the store; whoever puts them must live on."""
    files = {
        f"{ASSETS}/{path.name}": path
        for path in sorted(found.assets.iterdir())
        if path.is_file() and path.suffix not in _WEIGHTS
    }
    return {**_put(files), **sent_engine(found.model)}


def sent_engine(model: Path) -> Parcel:
    """Put an engine's file with what lies beside it, or the folder of several, into the store."""
    root = model if model.is_dir() else model.parent
    files = {
        f"{ENGINE}/{path.relative_to(root).as_posix()}": path
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    return _put(files)


def received(
    parcel: Parcel, folder: Path, wanted: Callable[[str], bool] = lambda _: True
) -> Places:
    """Write the wanted files of a parcel below `folder`, as a session expects them."""
    for name, reference in parcel.items():
        if wanted(name):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(memoryview(ray.get(reference)))
    engine = folder / ENGINE
    model = next(
        (engine / name for name in ("model.onnx", "model.ort") if f"{ENGINE}/{name}" in parcel),
        engine,
    )
    return Places(model, folder / ASSETS)


def is_small(name: str) -> bool:
    """Whether a file says what goes in and out, and is not the engine itself."""
    return name.startswith(f"{ASSETS}/") or Path(name).name == FILE


def _put(files: Mapping[str, Path]) -> Parcel:
    # A map of the file, so that its bytes are in memory once: in the store.
    return {
        name: ray.put(
            np.asarray(np.memmap(path, np.uint8, "r"))
            if path.stat().st_size
            else np.empty(0, np.uint8)
        )
        for name, path in files.items()
    }
