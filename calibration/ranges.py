"""ranges.json and the vectors beside it: all that quantising needs of a calibration."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import CalibrationError, ConfigError
from .case import Choice
from .statistics import Matrix, Seen, Vector

FILE = "ranges.json"
VECTORS = "ranges.safetensors"
SCHEMA = 1


@dataclass(frozen=True)
class Range:
    """One activation: how it is smoothed and cut off, and what that costs its layers."""

    tensor: str
    choice: Choice
    layers: tuple[str, ...]
    low: float
    high: float
    rows: int
    saturated: float
    histogram: tuple[int, ...] = ()
    histogram_width: float = 0.0


@dataclass(frozen=True)
class Kept:
    """What rounding needs of an activation: weighed mean [k] and moments, rows and their weights.

    `moments` is a covariance [k, k] or variances [k]; `rows` and `held_out` are samples [r, k].
    """

    mean: Vector
    moments: Matrix
    rows: Matrix
    importance: Vector
    held_out: Matrix
    held_out_importance: Vector

    @classmethod
    def of(cls, seen: Seen, held_out: Seen) -> "Kept":
        """From what was seen of the samples, and of those held out."""
        return cls(
            seen.mean,
            seen.moments,
            seen.sample,
            seen.importance,
            held_out.sample,
            held_out.importance,
        )


@dataclass(frozen=True)
class Calibrated:
    """A calibration: of which model and samples, how, and the ranges by activation."""

    model: str
    samples: dict[str, Any]
    method: str
    seed: int
    versions: dict[str, str]
    ranges: dict[str, Range]
    kept: dict[str, Kept]


def save(calibrated: Calibrated, folder: Path) -> None:
    """Write ranges.json and ranges.safetensors; the same calibration gives the same bytes."""
    from safetensors.numpy import save_file

    head = {
        "schema_version": SCHEMA,
        "model": calibrated.model,
        "samples": calibrated.samples,
        "method": calibrated.method,
        "seed": calibrated.seed,
        "versions": calibrated.versions,
        "ranges": {name: _record(each) for name, each in calibrated.ranges.items()},
    }
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
    save_file(_vectors(calibrated), folder / VECTORS)


def _record(each: Range) -> dict[str, Any]:
    choice = each.choice
    fields = {k: v for k, v in asdict(each).items() if k not in ("choice", "tensor")}
    vectors = ("scale", "shift", "errors")
    chosen = {k: v for k, v in asdict(choice).items() if k not in vectors}
    return {**chosen, "errors": list(choice.errors), **fields}


def _vectors(calibrated: Calibrated) -> dict[str, NDArray[Any]]:
    made: dict[str, NDArray[Any]] = {}
    for name, each in calibrated.ranges.items():
        if each.choice.scale is not None:
            made[f"{name}/scale"] = each.choice.scale
        if each.choice.shift is not None:
            made[f"{name}/shift"] = each.choice.shift
    for name, kept in calibrated.kept.items():
        made[f"{name}/mean"], made[f"{name}/moments"] = kept.mean, _packed(kept.moments)
        for kind, rows in (("rows", kept.rows), ("held-out", kept.held_out)):
            peak = np.maximum(np.abs(rows).max(axis=0), 1e-30).astype(np.float32)
            made[f"{name}/{kind}"] = (rows / peak).astype(np.float16)
            made[f"{name}/{kind}/peak"] = peak
        made[f"{name}/rows/importance"] = kept.importance
        made[f"{name}/held-out/importance"] = kept.held_out_importance
    return made


def _packed(moments: Matrix) -> Matrix:
    """The upper half of a covariance; variances as they are."""
    return moments if moments.ndim == 1 else moments[np.triu_indices(len(moments))]


def _unpacked(values: Matrix, k: int) -> Matrix:
    if len(values) == k:
        return values
    upper = np.zeros((k, k), np.float32)
    upper[np.triu_indices(k)] = values
    return upper + np.triu(upper, 1).T


def load(folder: Path, model: str) -> Calibrated:
    """Read a calibration of the model whose graph has the digest `model`.

    Raises:
        ConfigError: it is not there, or is of another model.
        CalibrationError: it cannot be read.
    """
    path = folder / FILE
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        found = _calibrated(head, _opened(folder / VECTORS))
    except FileNotFoundError as error:
        raise ConfigError("no calibration", where=path, mend="run `llmdeploy calibrate`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CalibrationError(
            f"not a calibration of schema {SCHEMA}", where=path, mend="calibrate again"
        ) from error
    if found.model != model:
        raise ConfigError(
            "these ranges are of another model",
            where=path,
            mend="run `llmdeploy calibrate` on this one",
        )
    return found


def _opened(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _calibrated(head: dict[str, Any], vectors: dict[str, NDArray[Any]]) -> Calibrated:
    if head["schema_version"] != SCHEMA:
        raise ValueError("schema")
    ranges = {name: _range(name, each, vectors) for name, each in head["ranges"].items()}
    kept = {name: _kept(name, vectors) for name in ranges}
    plain = {key: head[key] for key in ("model", "samples", "method", "seed", "versions")}
    return Calibrated(**plain, ranges=ranges, kept=kept)


def _kept(name: str, vectors: dict[str, NDArray[Any]]) -> Kept:
    mean = vectors[f"{name}/mean"]
    rows, held_out = (
        vectors[f"{name}/{kind}"].astype(np.float32) * vectors[f"{name}/{kind}/peak"]
        for kind in ("rows", "held-out")
    )
    importance = (vectors[f"{name}/{kind}/importance"] for kind in ("rows", "held-out"))
    fit, test = importance
    moments = _unpacked(vectors[f"{name}/moments"], len(mean))
    return Kept(mean, moments, rows, fit, held_out, test)


def _range(name: str, each: dict[str, Any], vectors: dict[str, NDArray[Any]]) -> Range:
    choice = Choice(
        strength=each["strength"],
        scale=vectors.get(f"{name}/scale"),
        shift=vectors.get(f"{name}/shift"),
        amax=each["amax"],
        observer=each["observer"],
        errors=tuple(each["errors"]),
        learned=each["learned"],
        outliers=tuple(each["outliers"]),
    )
    rest = ("low", "high", "rows", "saturated", "histogram_width")
    return Range(
        tensor=name,
        choice=choice,
        layers=tuple(each["layers"]),
        histogram=tuple(each["histogram"]),
        **{key: each[key] for key in rest},
    )
