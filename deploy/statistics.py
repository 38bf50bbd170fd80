"""What Polygraphy's comparison functions say of each output, over all samples."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from .pieces import Figures, Floats, Outputs, Piece, Pieces, joined

#: Of an output: what was measured of each piece, and whether Polygraphy passes its errors.
Measured = list[tuple[Piece, Figures, bool]]
SIDES = ("reference", "candidate")


@dataclass(frozen=True)
class OutputStats:
    """Errors of one output; relative ones are relative to the reference's largest magnitude.

    `max_abs` is over every element, the means are over samples. `snr_db` is the least of any
    sample, None where a sample is equal to the bit.
    """

    name: str
    ok: bool
    max_abs: float
    mean_abs: float
    max_rel: float
    mean_rel: float
    cosine_min: float
    cosine_mean: float
    snr_db: float | None


def measure(
    samples: Iterable[tuple[Outputs, Outputs]],
    max_relative_error: float | None,
    min_cosine: Callable[[str], float | None],
) -> tuple[OutputStats, ...]:
    """Compare samples, one at a time, of the same names, shapes and dtypes, all finite.

    `min_cosine` gives the least that an output may have.
    """
    pieces = Pieces()
    results = _polygraphy(pieces.cut(samples))
    limit = np.inf if max_relative_error is None else max_relative_error
    # a scale is known when all was seen: errors are judged then, by what Polygraphy kept of them
    scale = {name: pieces.scale[name] or 1.0 for name in sorted(pieces.scale)}
    measured = _judged(results, pieces.given, {n: limit * each for n, each in scale.items()})
    return tuple(
        _stats(name, each, measured[name], min_cosine(name)) if name in measured else _equal(name)
        for name, each in scale.items()
    )


def _polygraphy(pieces: Iterator[tuple[Floats, Floats]]) -> Iterable[Any]:
    """Of the error, cosine and SNR functions each an `AccuracyResult`.

    The functions are called here, and quietly: Polygraphy's loop over them also takes the quantiles
    of what it compared, and so does its error function of the errors, for a log that nobody reads.
    """
    from polygraphy.comparator import (
        AccuracyResult,
        CosineSimilarityCompareFunc,
        IterationResult,
        SimpleCompareFunc,
        SnrCompareFunc,
    )
    from polygraphy.logger import G_LOGGER

    functions = [
        SimpleCompareFunc(check_error_stat="max", atol=np.inf, rtol=0.0),
        CosineSimilarityCompareFunc(cosine_similarity_threshold=-1.0),
        SnrCompareFunc(snr_threshold=-np.inf),
    ]
    results = [AccuracyResult({SIDES: []}) for _ in functions]
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), _unlogged():
        for pair in pieces:
            one, two = (
                IterationResult(outputs, runner_name=side)
                for side, outputs in zip(SIDES, pair, strict=True)
            )
            for function, result in zip(functions, results, strict=True):
                result[SIDES].append(function(one, two))
    return results


@contextmanager
def _unlogged() -> Generator[None]:
    """Leave out what Polygraphy words for its log, whatever its verbosity: most of the time."""
    words: Any = import_module("polygraphy.comparator.util")
    logs = getattr(words, "log_output_stats", None)
    if logs is None:  # another version's
        yield
        return
    words.log_output_stats = lambda *_, **__: None
    try:
        with np.printoptions(threshold=1, edgeitems=1):  # it prints arrays for its log, too
            yield
    finally:
        words.log_output_stats = logs


def _judged(
    results: Iterable[Any], given: Sequence[dict[str, Piece]], absolute: dict[str, float]
) -> dict[str, Measured]:
    """The pieces of each output that has elements; `absolute` is what an error may be."""
    from polygraphy.comparator import SimpleThreshold

    errors, cosines, ratios = results
    errors.reevaluate({n: SimpleThreshold("max", each, 0.0) for n, each in absolute.items()})
    found: dict[str, Measured] = {}
    each = zip(given, _of(errors), _of(cosines), _of(ratios), strict=True)
    for pieces, error, cosine, ratio in each:
        for name, piece in pieces.items():
            figures = Figures(
                max_abs=float(error[name].max_absdiff),
                mean_abs=float(error[name].mean_absdiff),
                cosine=float(cosine[name].cosine_similarity),
                snr=float(ratio[name].snr),
            )
            found.setdefault(name, []).append((piece, figures, bool(error[name])))
    return found


def _of(result: Any) -> Sequence[dict[str, Any]]:
    """What a function gave of each iteration; nothing where none was compared."""
    return next(iter(result.values()), ())


def _stats(name: str, scale: float, measured: Measured, least: float | None) -> OutputStats:
    samples: dict[int, list[tuple[Piece, Figures]]] = {}
    for piece, figures, _ in measured:
        samples.setdefault(piece.sample, []).append((piece, figures))
    found = [joined(parts) for parts in samples.values()]
    cosines = [each.cosine for each in found]
    max_abs, mean_abs = max(each.max_abs for each in found), _mean(e.mean_abs for e in found)
    snr = min(each.snr for each in found)
    return OutputStats(
        name=name,
        ok=all(ok for *_, ok in measured) and _near(cosines, least),
        max_abs=max_abs,
        mean_abs=mean_abs,
        max_rel=max_abs / scale,
        mean_rel=mean_abs / scale,
        cosine_min=min(cosines),
        cosine_mean=_mean(cosines),
        snr_db=snr if np.isfinite(snr) else None,
    )


def _near(cosines: Sequence[float], least: float | None) -> bool:
    """Polygraphy's verdict on the mean of the samples' cosines."""
    from polygraphy.comparator import (
        AccuracyResult,
        CosineSimilarityResult,
        CosineSimilarityThreshold,
    )

    limit = CosineSimilarityThreshold(-1.0 if least is None else least)
    samples = [{"": CosineSimilarityResult(each, thresholds=limit)} for each in cosines]
    return bool(AccuracyResult({SIDES: samples}, aggregation="average"))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _equal(name: str) -> OutputStats:
    return OutputStats(name, True, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, None)
