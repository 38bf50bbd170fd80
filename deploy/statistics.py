"""What Polygraphy's comparison functions say of each output, over all samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray[Any]]


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
    reference: Sequence[Outputs],
    candidate: Sequence[Outputs],
    max_relative_error: float | None,
    min_cosine: Callable[[str], float | None],
) -> tuple[OutputStats, ...]:
    """Compare samples of the same names, shapes and dtypes, all finite.

    `min_cosine` gives the least that an output may have.
    """
    scale = {name: _scale(reference, name) for name in sorted(reference[0])}
    limit = np.inf if max_relative_error is None else max_relative_error
    results = _polygraphy(
        [_filled(outputs) for outputs in reference],
        [_filled(outputs) for outputs in candidate],
        {name: float(limit * each) for name, each in scale.items()},
        {name: -1.0 if (least := min_cosine(name)) is None else least for name in scale},
    )
    return tuple(
        _stats(name, each, *results[name]) if name in results else _equal(name)
        for name, each in scale.items()
    )


def _polygraphy(
    reference: Sequence[Outputs],
    candidate: Sequence[Outputs],
    absolute: dict[str, float],
    cosine: dict[str, float],
) -> dict[str, tuple[list[Any], list[Any], list[Any], bool]]:
    """Per output: a sample's results of the error, cosine and SNR functions, and the verdict."""
    from polygraphy.comparator import (
        Comparator,
        CosineSimilarityCompareFunc,
        SimpleCompareFunc,
        SnrCompareFunc,
    )
    from polygraphy.logger import G_LOGGER

    runs = _runs(reference, candidate)
    error = SimpleCompareFunc(check_error_stat="max", atol=absolute, rtol=0.0)
    similar = CosineSimilarityCompareFunc(cosine_similarity_threshold=cosine)
    noise = SnrCompareFunc(snr_threshold=-np.inf)
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        errors, ratios = Comparator.compare_accuracy(runs, compare_func=[error, noise])
        (cosines,) = Comparator.compare_accuracy(runs, compare_func=[similar], check_average=True)
        averages = cosines.average_results()
    return {
        name: (
            _of(errors, name),
            _of(cosines, name),
            _of(ratios, name),
            all(map(bool, _of(errors, name))) and bool(averages[name]),
        )
        for name in averages
    }


def _runs(reference: Sequence[Outputs], candidate: Sequence[Outputs]) -> Any:
    from polygraphy.comparator import RunResults

    runs = RunResults()
    for side, results in (("reference", reference), ("candidate", candidate)):
        runs.add([dict(outputs) for outputs in results], runner_name=side)
    return runs


def _filled(outputs: Outputs) -> dict[str, NDArray[np.float64]]:
    """What has elements, as float64: Polygraphy's arithmetic lacks bool and overflows integers."""
    return {name: array.astype(np.float64) for name, array in outputs.items() if array.size}


def _of(result: Any, name: str) -> list[Any]:
    (samples,) = result.values()
    return [sample[name] for sample in samples if name in sample]


def _stats(
    name: str,
    scale: float,
    errors: Sequence[Any],
    cosines: Sequence[Any],
    ratios: Sequence[Any],
    ok: bool,
) -> OutputStats:
    max_abs = max(result.max_absdiff for result in errors)
    mean_abs = float(np.mean([result.mean_absdiff for result in errors]))
    similar = [result.cosine_similarity for result in cosines]
    snr = min(result.snr for result in ratios)
    return OutputStats(
        name=name,
        ok=ok,
        max_abs=float(max_abs),
        mean_abs=mean_abs,
        max_rel=float(max_abs / scale),
        mean_rel=float(mean_abs / scale),
        cosine_min=float(min(similar)),
        cosine_mean=float(np.mean(similar)),
        snr_db=float(snr) if np.isfinite(snr) else None,
    )


def _scale(reference: Sequence[Outputs], name: str) -> float:
    """Largest magnitude of an output; 1 where it is all zeros."""
    tops = (np.abs(outputs[name].astype(np.float64)) for outputs in reference)
    return max((float(top.max()) for top in tops if top.size), default=0.0) or 1.0


def _equal(name: str) -> OutputStats:
    return OutputStats(name, True, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, None)
