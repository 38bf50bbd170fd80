"""Texts of like length in batches: what is padded to the longest of them is run for nothing."""

from collections.abc import Iterator, Sequence

#: The longest of a batch has at most so many times the tokens of the shortest: a run more costs
#: less than padding does, and all lengths from 8 to 512 tokens make ten more at most.
SPREAD = 1.5


def alike(lengths: Sequence[int], size: int, spread: float = SPREAD) -> Iterator[list[int]]:
    """The places of `lengths` in batches of at most `size`, shortest first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) == size or lengths[place] > spread * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
