"""A request of many rows in parts that run one after the other, so that others run between them."""

from collections.abc import Iterator, Sequence

import numpy as np

from .tensors import Arrays


def cut(arrays: Arrays, rows: int, size: int) -> Iterator[tuple[Arrays, int]]:
    """Arrays of at most `size` of the rows each, and how many."""
    for start in range(0, rows, size):
        end = min(start + size, rows)
        yield {name: array[start:end] for name, array in arrays.items()}, end - start


def joined(parts: Sequence[Arrays]) -> Arrays:
    """The rows of all parts in order."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
