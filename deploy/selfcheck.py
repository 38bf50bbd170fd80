"""A bundle's own check: every digest, then its golden inputs on the engine it carries.

`python -m llmdeploy.deploy.selfcheck BUNDLE` prints the record as one JSON object and exits 0,
or 1 where the bundle is not fit, or with the error's code where it could not be checked.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from .. import BundleError, Error
from .bundle import Golden, Manifest, Tolerance, differences, extract
from .golden import agree
from .hiding import hide
from .oci import is_layout, unlayered
from .places import BACKEND
from .runtime import Session, load

PACKAGES = ("llmdeploy", "numpy", "onnxruntime", "onnxruntime-gpu", "pydantic", "tokenizers")


@dataclass(frozen=True)
class Check:
    """One thing that was checked; `ok` is None where it could not be executed here."""

    name: str
    ok: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """What checking a bundle gave, and what it was checked with."""

    bundle: str
    ok: bool
    checks: tuple[Check, ...]
    seconds: float
    python: str = sys.executable
    python_version: str = field(default_factory=platform.python_version)
    packages: dict[str, str] = field(default_factory=lambda: _versions(PACKAGES))
    torch_imported: bool = field(default_factory=lambda: "torch" in sys.modules)


def verify_bundle(path: Path, engine: Path | None = None) -> Verification:
    """Check a bundle's folder or archive; nothing of it is run before its digests are right.

    `engine` is the folder of an engine that was built from its portable graph, to be run in place
    of its own.

    Raises:
        BundleError: there is no bundle at `path`, or its archive is unsound.
        MissingError: the engine cannot be executed on this machine.
    """
    started = time.perf_counter()
    with _opened(path) as folder:
        found = Manifest.load(folder)
        checks = [Check(f"file {name}", False, why) for name, why in differences(folder, found)]
        if not checks:
            digests = f"{len(found.files)} files, {found.total_bytes:,} bytes"
            checks = [Check("files", True, digests), *_engines(folder, found, engine)]
    ok = all(check.ok is not False for check in checks)
    ran = any(check.name.startswith("golden") and check.ok for check in checks)
    return Verification(str(path), ok and ran, tuple(checks), time.perf_counter() - started)


@contextmanager
def _opened(path: Path) -> Generator[Path]:
    if path.is_dir() and not is_layout(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as folder:
        inner = Path(folder) / "bundle"
        if path.is_dir():
            unlayered(path, inner)
        else:
            extract(path, inner)
        yield inner


def _engines(folder: Path, manifest: Manifest, built: Path | None) -> Generator[Check]:
    backends = [engine.backend for engine in manifest.engines]
    for backend in backends:
        if backend != BACKEND:
            yield Check(f"engine {backend}", None, "not executed here: only its bytes are checked")
    if BACKEND not in backends or not manifest.golden:
        lacking = "golden run" if BACKEND in backends else f"{BACKEND} engine"
        yield Check("golden", None, f"not executed here: the bundle has no {lacking}")
        return
    with load(folder, engine=built) as session:
        for index, golden in enumerate(manifest.golden):
            yield from _golden(folder, session, golden, manifest.tolerance, index)


def _golden(
    folder: Path, session: Session, golden: Golden, tolerance: Tolerance, index: int
) -> Generator[Check]:
    inputs, wanted = (_arrays(folder / name) for name in (golden.inputs, golden.outputs))
    if golden.texts and golden.max_length:
        made = session.encoder.encode(golden.texts, max_length=golden.max_length)
        why = _unequal(inputs, made)
        yield Check(f"tokens {index}", not why, why or f"{len(golden.texts)} texts")
    yield Check(f"golden {index}", *agree(wanted, session.run(inputs, golden.graph), tolerance))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return load_file(path)
    except Exception as error:
        raise BundleError(f"golden arrays cannot be read: {error}", where=path) from error


def _unequal(wanted: dict[str, NDArray[Any]], made: dict[str, NDArray[Any]]) -> str:
    if wanted.keys() != made.keys():
        return f"inputs {sorted(made)} instead of {sorted(wanted)}"
    bad = [name for name in wanted if not np.array_equal(wanted[name], made[name])]
    return f"the tokenizer gives other {', '.join(bad)}" if bad else ""


def _versions(names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a bundle and print the record; see the module."""
    parser = argparse.ArgumentParser(prog="llmdeploy.deploy.selfcheck", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--hide", default="", help="packages that must not be needed, by commas")
    parser.add_argument("--engine", type=Path, help="an engine to run in place of the bundle's")
    given = parser.parse_args(arguments)
    hidden = tuple(name for name in given.hide.split(",") if name)
    hide(hidden)
    try:
        record: dict[str, Any] = asdict(verify_bundle(given.bundle, given.engine))
        code = 0 if record["ok"] else 1
    except Error as error:
        kind = type(error).__name__
        record = {"bundle": str(given.bundle), "ok": False, "kind": kind, "error": str(error)}
        code = error.exit_code
    sys.stdout.write(json.dumps({**record, "hidden": hidden}, ensure_ascii=False) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
