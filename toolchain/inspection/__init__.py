"""`llmdeploy inspect PATH`: what is in a model, stage, workspace, bundle, engine or report."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ... import ConfigError
from ...deploy.bundle import MANIFEST, Manifest, manifest_of
from ...deploy.places import ARCHIVE
from ...deploy.trt_plan import header, unmet
from ..workspace import RECORD, Workspace

#: Suffixes of serialized TensorRT engines.
_PLANS = (".plan", ".engine", ".trt")
#: The order that stages are made in; others follow by name.
_ORDER = ("export", "optimize", "compress", "calibrate", "quantize", "engine", "bundle")


def inspect(path: Path, target: str | None = None) -> dict[str, Any]:
    """What is at `path`, as JSON values: always its `kind` and `path`, then what that kind has.

    With a `target` also the `findings`: what it does not take of the graph, or takes otherwise.

    Raises:
        ConfigError: there is nothing, or nothing that is known; or no such target.
        Error: it is broken.
    """
    if not path.exists():
        raise ConfigError("nothing there", where=path, mend="give a model, a stage or a bundle")
    for kind, (fits, read) in _KINDS.items():
        if fits(path):
            found = {"kind": kind, "path": str(path), **read(path)}
            return found | ({"findings": _findings(path, target)} if target else {})
    raise ConfigError(
        "not known what this is",
        where=path,
        mend=f"one of: {', '.join(_KINDS)}",
    )


def _findings(path: Path, target: str) -> list[dict[str, Any]]:
    from .linting import findings

    return [asdict(finding) for finding in findings(path, target)]


def _bundle(path: Path) -> dict[str, Any]:
    manifest = Manifest.load(path) if path.is_dir() else manifest_of(path)
    return {"bytes": manifest.total_bytes, "manifest": manifest.model_dump(mode="json")}


def _model(path: Path) -> dict[str, Any]:
    from .graph import graph

    return {"graph": graph(path)}


def _stage(path: Path) -> dict[str, Any]:
    record = _record(path)
    inner = _model(path) if (path / "model.onnx").is_file() else {}
    plans = [file for file in sorted(path.iterdir()) if file.suffix in _PLANS]
    return record | inner | ({"engine": _plan(plans[0])} if plans else {})


def _record(path: Path) -> dict[str, Any]:
    found = Workspace(path.parent).stage(path.name)
    if found is None:
        raise ConfigError("the stage's record cannot be read", where=path / RECORD, mend="--force")
    kept = ("name", "seconds", "peak_memory_bytes", "inputs", "options", "versions", "results")
    sizes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {key: getattr(found, key) for key in kept} | {"digest": found.digest, "bytes": sizes}


def _workspace(path: Path) -> dict[str, Any]:
    stages = [_line(path, folder) for folder in sorted(_stages(path), key=_place)]
    return {"stages": stages}


def _line(root: Path, folder: Path) -> dict[str, Any]:
    record = _record(folder)
    kept = ("seconds", "peak_memory_bytes", "bytes", "digest")
    return {"name": folder.relative_to(root).as_posix()} | {key: record[key] for key in kept}


def _stages(path: Path) -> list[Path]:
    found = [*path.glob(f"*/{RECORD}"), *path.glob(f"*/*/{RECORD}")]
    return [file.parent for file in found if not file.parent.name.startswith(".")]


def _place(folder: Path) -> tuple[int, int, str]:
    name = folder.name if folder.name in _ORDER else folder.parent.name
    rank = _ORDER.index(name) if name in _ORDER else len(_ORDER)
    return (rank, len(folder.parts), folder.as_posix())


def _ranges(path: Path) -> dict[str, Any]:
    file = path / "ranges.json" if path.is_dir() else path
    try:
        return {"ranges": json.loads(file.read_text(encoding="utf-8"))}
    except ValueError as error:
        raise ConfigError("not JSON", where=file, mend="run `llmdeploy calibrate`") from error


def _report(path: Path) -> dict[str, Any]:
    from ..differing import read_report

    return {"report": read_report(path).model_dump(mode="json")}


def _plan(path: Path) -> dict[str, Any]:
    found = header(path)
    made = {"backend": found.backend, "version": found.version}
    lack = unmet(found)
    return made | {
        "serialization": found.serialization,
        "bytes": path.stat().st_size,
        "loads here": "no: " + "; ".join(lack) if lack else "by its header, yes",
    }


def _has(name: str) -> Callable[[Path], bool]:
    return lambda path: (path / name).is_file()


def _is(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.name.endswith(suffixes)


#: Kind -> whether a path is one, and how it is read; the first that fits is taken.
_KINDS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], dict[str, Any]]]] = {
    "ONNX model": (_is(".onnx"), _model),
    "bundle archive": (_is(ARCHIVE), _bundle),
    "engine": (_is(*_PLANS), _plan),
    "ranges": (_is("ranges.json"), _ranges),
    "report": (_is("report.json"), _report),
    "bundle": (_has(MANIFEST), _bundle),
    "stage": (_has(RECORD), _stage),
    "ONNX folder": (_has("model.onnx"), _model),
    "workspace": (lambda path: path.is_dir() and bool(_stages(path)), _workspace),
}
