"""ranges.json and the vectors beside it: all that quantising needs of a calibration."""

import json
from collections.abc import Iterable, Iterator, Mapping
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
SCHEMA = 2


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
    dead: int = 0
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
    ranges: Mapping[str, Range]
    kept: Mapping[str, Kept]


def save(calibrated: Calibrated, folder: Path) -> None:
    """Write ranges.json; the same calibration gives the same bytes."""
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


def save_vectors(
    found: Mapping[str, Range], kept: Mapping[str, Kept], folder: Path, part: int = 0
) -> None:
    """Write what is kept of some activations to ranges.safetensors, or to a file of that part."""
    from safetensors.numpy import save_file

    save_file(_vectors(found, kept), folder / (f"ranges-{part}.safetensors" if part else VECTORS))


def _record(each: Range) -> dict[str, Any]:
    choice = each.choice
    fields = {k: v for k, v in asdict(each).items() if k not in ("choice", "tensor")}
    vectors = ("scale", "shift", "errors")
    chosen = {k: v for k, v in asdict(choice).items() if k not in vectors}
    return {**chosen, "errors": list(choice.errors), **fields}


def _vectors(found: Mapping[str, Range], kept: Mapping[str, Kept]) -> dict[str, NDArray[Any]]:
    made: dict[str, NDArray[Any]] = {}
    for name, each in found.items():
        if each.choice.scale is not None:
            made[f"{name}/scale"] = each.choice.scale
        if each.choice.shift is not None:
            made[f"{name}/shift"] = each.choice.shift
    for name, each in kept.items():
        made[f"{name}/mean"], made[f"{name}/moments"] = each.mean, _packed(each.moments)
        for kind, rows in (("rows", each.rows), ("held-out", each.held_out)):
            peak = np.maximum(np.abs(rows).max(axis=0), 1e-30).astype(np.float32)
            made[f"{name}/{kind}"] = (rows / peak).astype(np.float16)
            made[f"{name}/{kind}/peak"] = peak
        made[f"{name}/rows/importance"] = each.importance
        made[f"{name}/held-out/importance"] = each.held_out_importance
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
        found = _calibrated(head, Vectors(folder))
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


class Vectors:
    """The vectors beside ranges.json by name, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, Path] = {}
        paths = sorted(folder.glob("ranges*.safetensors"))
        if not paths:
            raise FileNotFoundError(folder / VECTORS)
        for path in paths:
            with _opened(path) as file:
                self._places |= dict.fromkeys(file.keys(), path)

    def __getitem__(self, name: str) -> NDArray[Any]:
        with _opened(self._places[name]) as file:
            return file.get_tensor(name)

    def get(self, name: str) -> NDArray[Any] | None:
        """A vector, or None where there is none of that name."""
        return self[name] if name in self._places else None


class Kepts(Mapping[str, Kept]):
    """What was kept of each activation, read when it is asked for: it may be larger than memory."""

    def __init__(self, names: Iterable[str], vectors: Vectors) -> None:
        self._names, self._vectors = tuple(names), vectors

    def __getitem__(self, name: str) -> Kept:
        return _kept(name, self._vectors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "numpy")
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _calibrated(head: dict[str, Any], vectors: Vectors) -> Calibrated:
    if head["schema_version"] != SCHEMA:
        raise ValueError("schema")
    ranges = {name: _range(name, each, vectors) for name, each in head["ranges"].items()}
    plain = {key: head[key] for key in ("model", "samples", "method", "seed", "versions")}
    return Calibrated(**plain, ranges=ranges, kept=Kepts(ranges, vectors))


def _kept(name: str, vectors: Vectors) -> Kept:
    mean = vectors[f"{name}/mean"]
    rows, held_out = (
        vectors[f"{name}/{kind}"].astype(np.float32) * vectors[f"{name}/{kind}/peak"]
        for kind in ("rows", "held-out")
    )
    importance = (vectors[f"{name}/{kind}/importance"] for kind in ("rows", "held-out"))
    fit, test = importance
    moments = _unpacked(vectors[f"{name}/moments"], len(mean))
    return Kept(mean, moments, rows, fit, held_out, test)


def _range(name: str, each: dict[str, Any], vectors: Vectors) -> Range:
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
    rest = ("low", "high", "rows", "saturated", "dead", "histogram_width")
    return Range(
        tensor=name,
        choice=choice,
        layers=tuple(each["layers"]),
        histogram=tuple(each["histogram"]),
        **{key: each[key] for key in rest},
    )
