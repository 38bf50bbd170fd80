"""Parity: two models' outputs on the same samples, compared by Polygraphy and then more strictly.

Polygraphy skips an output that one side lacks and passes where one of two tolerances holds. Here
a missing, extra, reshaped, retyped or non-finite output fails, and every stated limit must hold.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import ParityError
from .statistics import OutputStats, measure

Outputs = Mapping[str, NDArray[Any]]
Watch = Callable[[Outputs, Outputs], None]


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


class Results(Protocol):
    """What a model gave, a result a feed; it may be read from disk as it is asked for."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __iter__(self) -> Iterator[Outputs]:
        """One after the other."""
        ...


def compare(
    name: str,
    against: str,
    reference: Results,
    candidate: Iterable[Outputs],
    tolerance: Tolerance,
    valid: Sequence[Outputs] | None = None,
    watch: Watch | None = None,
) -> Parity:
    """Compare a candidate's outputs with a reference's, a feed at a time.

    `valid` gives, feed by feed, a bool mask over the leading axes of the outputs it names, an axis
    of 1 for all of that axis; what it excludes (padding) is not compared. `watch` is called with
    what is compared of both sides, a sample at a time.

    Raises:
        ParityError: there is nothing to compare, or a mask does not fit.
    """
    count = len(reference)
    if not count:
        raise ParityError("no samples to compare", where=f"{name} against {against}")
    walk = _Walk(reference, candidate, valid if valid is not None else [{}] * count)
    outputs = measure(walk.samples(watch), tolerance.max_relative_error, tolerance.cosine)
    if walk.differs:
        return Parity(name, against, False, count, (), tolerance, walk.differs)
    if walk.infinite:
        return Parity(name, against, False, walk.count, (), tolerance, walk.infinite)
    bad = [each for each in outputs if not each.ok]
    reason = "; ".join(_why(each, tolerance) for each in bad)
    return Parity(name, against, not bad, walk.count, outputs, tolerance, reason)


class _Walk:
    """Both sides' outputs side by side, and what is wrong with them beyond their values."""

    def __init__(
        self, reference: Results, candidate: Iterable[Outputs], masks: Sequence[Outputs]
    ) -> None:
        self._reference, self._candidate, self._masks = reference, candidate, masks
        self.count = 0
        self.differs = self.infinite = ""

    def samples(self, watch: Watch | None) -> Iterator[tuple[Outputs, Outputs]]:
        """Samples to measure, until something differs; that all are finite is seen to the end."""
        wanted, given = iter(self._reference), iter(self._candidate)
        for index, mask in enumerate(self._masks):
            after, before = next(given, None), next(wanted)  # the model runs with neither there
            self.differs = self._differing(before, after, index)
            if after is None or self.differs:
                return
            yield from self._feed(_rows(before, mask), _rows(after, mask), watch)
            del before, after  # before the next are made: outputs may be large
        self.differs = self._counted(len(self._reference) + sum(1 for _ in given))

    def _feed(
        self, before: Iterator[Outputs], after: Iterator[Outputs], watch: Watch | None
    ) -> Iterator[tuple[Outputs, Outputs]]:
        for one, two in zip(before, after, strict=True):
            self.infinite = self.infinite or _non_finite(one, two, self.count)
            self.count += 1
            if self.infinite:
                continue
            if watch is not None:
                watch(one, two)
            yield one, two

    def _differing(self, before: Outputs, after: Outputs | None, index: int) -> str:
        return self._counted(index) if after is None else _structure(before, after, index)

    def _counted(self, count: int) -> str:
        wanted = len(self._reference)
        return "" if count == wanted else f"{count} results for {wanted} samples"


def _structure(before: Outputs, after: Outputs, index: int) -> str:
    """What differs before any value is looked at, empty when nothing does."""
    for verb, names in (("missing", before.keys() - after), ("extra", after.keys() - before)):
        if names:
            return f"{verb} output {', '.join(sorted(names))} in sample {index}"
    for name, array in before.items():
        other = after[name]
        if array.shape != other.shape or array.dtype != other.dtype:
            was, now = f"{array.dtype}{array.shape}", f"{other.dtype}{other.shape}"
            return f"output {name} of sample {index} is {now} and was {was}"
    return ""


def _rows(outputs: Outputs, mask: Outputs) -> Iterator[Outputs]:
    """One result a sample: batches are split along their first axis, padding is dropped."""
    sizes = {array.shape[0] if array.ndim else 0 for array in outputs.values()}
    count = sizes.pop() if len(sizes) == 1 else 0
    if count < 2:
        yield {name: _valid(array, mask.get(name)) for name, array in outputs.items()}
        return
    for index in range(count):
        row = slice(index, index + 1)
        yield {
            name: _valid(array[row], mask[name][row] if name in mask else None)
            for name, array in outputs.items()
        }


def _valid(array: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
    if mask is None:
        return array
    try:
        whole = np.broadcast_to(mask.astype(bool), array.shape[: mask.ndim])
    except ValueError as error:
        raise ParityError(f"a mask of shape {mask.shape} does not fit {array.shape}") from error
    return array[whole]


def _non_finite(before: Outputs, after: Outputs, index: int) -> str:
    for side, outputs in (("reference", before), ("candidate", after)):
        for name, array in outputs.items():
            if not _finite(array):
                return f"NaN or Inf in output {name} of the {side}, sample {index}"
    return ""


def _finite(array: NDArray[Any]) -> bool:
    kind = array.dtype.kind
    return kind in "iub" or bool(np.isfinite(array.astype(np.float32, copy=False)).all())


def _why(stats: OutputStats, tolerance: Tolerance) -> str:
    parts: list[str] = []
    limit, least = tolerance.max_relative_error, tolerance.cosine(stats.name)
    if limit is not None and not stats.max_rel <= limit:
        parts.append(f"relative error {stats.max_rel:.3g} above {limit:.3g}")
    if least is not None and not stats.cosine_mean >= least:
        parts.append(f"mean cosine {stats.cosine_mean:.6f} below {least:.6f}")
    return f"{stats.name}: {' and '.join(parts) or 'refused by Polygraphy'}"
