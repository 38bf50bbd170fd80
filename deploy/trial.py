"""Whether a bundle works on this machine: its self-test, and its recipe where the engine does not.

A self-test runs in a process of its own.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import BuildError, BundleError, Error
from .bundle import Engine, Manifest
from .places import BACKEND

if TYPE_CHECKING:
    from .backend import Backend

#: A bundle's folder, and an engine to take in place of its own, to the record of a self-test.
SelfTest = Callable[[Path, Path | None], dict[str, Any]]
#: How long a self-test may take, in seconds.
PATIENCE = 900.0


def selftest(folder: Path, engine: Path | None = None) -> dict[str, Any]:
    """Check a bundle in a process of its own: an engine that crashes takes only that with it.

    Raises:
        BundleError: it crashed, or did not end in time.
    """
    command = [sys.executable, "-m", "llmdeploy.deploy.selfcheck", str(folder.absolute())]
    command += ["--engine", str(engine.absolute())] if engine else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"the self-test took over {PATIENCE:g} s", where=folder) from error
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        what = f"the self-test ended with {done.returncode} and no record"
        raise BundleError(what, where=folder) from error


def tried(
    path: Path, built: Path, check: SelfTest, backend: "Backend | None" = None
) -> dict[str, Any]:
    """The self-test's record of the bundle in `path`, with the engine in `built` if one is there.

    Where the engine fails and the bundle has a recipe, one is built into `built` and tried.

    Raises:
        BundleError: it fails, and stays so.
    """
    tested = check(path, built if built.is_dir() else None)
    if not tested.get("ok") and built.is_dir():
        shutil.rmtree(built)
        tested = check(path, None)
    if _engine_failed(tested) and any(engine.recipe for engine in _engines(path)):
        reason = why(tested)
        _rebuild(path, built, backend, reason)
        tested = {**check(path, built), "rebuilt": reason}
    if not tested.get("ok"):
        raise BundleError(f"the self-test failed: {why(tested)}", where=path.name)
    return tested


def _engine_failed(tested: dict[str, Any]) -> bool:
    """Whether what failed is the engine, not the bundle's bytes and not this machine."""
    failed = [check["name"] for check in tested.get("checks", ()) if check["ok"] is False]
    ran_wrong = bool(failed) and all(name.startswith("golden") for name in failed)
    return ran_wrong or tested.get("kind") == BuildError.__name__


def _engines(path: Path) -> list[Engine]:
    return [engine for engine in Manifest.load(path).engines if engine.backend == BACKEND]


def _rebuild(path: Path, built: Path, backend: "Backend | None", reason: str) -> None:
    from .rebuild import rebuild

    if backend is None:
        from .ort import OnnxRuntime

        backend = OnnxRuntime()
    try:
        rebuild(path, Manifest.load(path), _engines(path)[0], backend, built)
    except Error as error:
        what = f"the engine failed ({reason}) and cannot be built again: {error}"
        raise BundleError(what, where=path.name) from error


def why(tested: dict[str, Any]) -> str:
    """What a self-test's record says went wrong, in words."""
    checks = [check for check in tested.get("checks", ()) if not check["ok"]]
    failed = [check for check in checks if check["ok"] is False] or checks
    words = "; ".join(f"{check['name']}: {check['detail']}" for check in failed)
    return str(tested.get("error") or words or "it gives no reason")
