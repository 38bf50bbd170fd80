"""Parity: two models' outputs on the same samples, compared by Polygraphy and then more strictly.

Polygraphy skips an output that one side lacks and passes where one of two tolerances holds. Here
a missing, extra, reshaped, retyped or non-finite output fails, and every stated limit must hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ParityError
from .statistics import OutputStats, measure

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """The limits that must hold; at least one is stated.

    `max_relative_error` bounds the largest error of any element, relative to the largest
    magnitude of that output in the reference. `min_cosine` bounds the mean over samples of the
    cosine between a sample's outputs; some outputs may have one `of` their own.
    """

    max_relative_error: float | None = None
    min_cosine: float | None = None
    of: Mapping[str, float] = field(default_factory=dict[str, float])

    def cosine(self, output: str) -> float | None:
        """The least mean cosine of an output."""
        return self.of.get(output, self.min_cosine)

    def __post_init__(self) -> None:
        """Refuse a tolerance that lets everything pass."""
        if self.max_relative_error is None and self.min_cosine is None:
            raise ParityError("a tolerance states no limit", mend="state an error or a cosine")


@dataclass(frozen=True)
class Parity:
    """What comparing `name` with `against` gave."""

    name: str
    against: str
    ok: bool
    samples: int
    outputs: tuple[OutputStats, ...]
    tolerance: Tolerance
    reason: str = ""


def compare(
    name: str,
    against: str,
    reference: Sequence[Outputs],
    candidate: Sequence[Outputs],
    tolerance: Tolerance,
    valid: Sequence[Outputs] | None = None,
) -> Parity:
    """Compare a candidate's outputs with a reference's, feed by feed.

    `valid` gives, feed by feed, a bool mask over the leading axes of the outputs it names, an axis
    of 1 for all of that axis; what it excludes (padding) is not compared.

    Raises:
        ParityError: there is nothing to compare, or a mask does not fit.
    """
    if not reference:
        raise ParityError("no samples to compare", where=f"{name} against {against}")
    differs = _structure(reference, candidate)
    if differs:
        return Parity(name, against, False, len(reference), (), tolerance, differs)
    masks: Sequence[Outputs] = valid if valid is not None else [{}] * len(reference)
    before, after = _rows(reference, masks), _rows(candidate, masks)
    infinite = _non_finite(before, after)
    if infinite:
        return Parity(name, against, False, len(before), (), tolerance, infinite)
    outputs = measure(before, after, tolerance.max_relative_error, tolerance.cosine)
    bad = [each for each in outputs if not each.ok]
    reason = "; ".join(_why(each, tolerance) for each in bad)
    return Parity(name, against, not bad, len(before), outputs, tolerance, reason)


def _structure(reference: Sequence[Outputs], candidate: Sequence[Outputs]) -> str:
    """What differs before any value is looked at, empty when nothing does."""
    if len(reference) != len(candidate):
        return f"{len(candidate)} results for {len(reference)} samples"
    for index, (before, after) in enumerate(zip(reference, candidate, strict=True)):
        for verb, names in (("missing", before.keys() - after), ("extra", after.keys() - before)):
            if names:
                return f"{verb} output {', '.join(sorted(names))} in sample {index}"
        for name, array in before.items():
            other = after[name]
            if array.shape != other.shape or array.dtype != other.dtype:
                was, now = f"{array.dtype}{array.shape}", f"{other.dtype}{other.shape}"
                return f"output {name} of sample {index} is {now} and was {was}"
    return ""


def _rows(results: Sequence[Outputs], masks: Sequence[Outputs]) -> list[dict[str, NDArray[Any]]]:
    """One result a sample: batches are split along their first axis, padding is dropped."""
    rows: list[dict[str, NDArray[Any]]] = []
    for outputs, mask in zip(results, masks, strict=True):
        sizes = {array.shape[0] if array.ndim else 0 for array in outputs.values()}
        count = sizes.pop() if len(sizes) == 1 else 0
        if count < 2:
            rows.append({name: _valid(array, mask.get(name)) for name, array in outputs.items()})
            continue
        for index in range(count):
            row = slice(index, index + 1)
            rows.append(
                {
                    name: _valid(array[row], mask[name][row] if name in mask else None)
                    for name, array in outputs.items()
                }
            )
    return rows


def _valid(array: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
    if mask is None:
        return array
    try:
        whole = np.broadcast_to(mask.astype(bool), array.shape[: mask.ndim])
    except ValueError as error:
        raise ParityError(f"a mask of shape {mask.shape} does not fit {array.shape}") from error
    return array[whole]


def _non_finite(reference: Sequence[Outputs], candidate: Sequence[Outputs]) -> str:
    for index, pair in enumerate(zip(reference, candidate, strict=True)):
        for side, outputs in zip(("reference", "candidate"), pair, strict=True):
            for name, array in outputs.items():
                if not _finite(array):
                    return f"NaN or Inf in output {name} of the {side}, sample {index}"
    return ""


def _finite(array: NDArray[Any]) -> bool:
    kind = array.dtype.kind
    return kind in "iub" or bool(np.isfinite(array.astype(np.float32)).all())


def _why(stats: OutputStats, tolerance: Tolerance) -> str:
    parts: list[str] = []
    limit, least = tolerance.max_relative_error, tolerance.cosine(stats.name)
    if limit is not None and not stats.max_rel <= limit:
        parts.append(f"relative error {stats.max_rel:.3g} above {limit:.3g}")
    if least is not None and not stats.cosine_mean >= least:
        parts.append(f"mean cosine {stats.cosine_mean:.6f} below {least:.6f}")
    return f"{stats.name}: {' and '.join(parts) or 'refused by Polygraphy'}"
