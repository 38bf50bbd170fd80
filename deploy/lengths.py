"""How many texts run together: those of like length, and fewer where they are long.

What is padded to the longest of a batch is run for nothing. An engine holds the scores of every
token with every other, so that the memory of a batch grows with the square of its length.
"""

from collections.abc import Iterator, Sequence

#: The longest of a batch has at most so many times the tokens of the shortest: a run more costs
#: less than padding does, and all lengths from 8 to 512 tokens make ten more at most.
SPREAD = 1.5
#: Tokens of a text up to which batches are of the size that is asked for.
USUAL = 512


def room(size: int, length: int) -> int:
    """Texts of `length` tokens with no more scores than `size` of the usual length; at least 1."""
    return size if length <= USUAL else max(1, size * USUAL**2 // length**2)


def alike(lengths: Sequence[int], size: int, spread: float = SPREAD) -> Iterator[list[int]]:
    """The places of `lengths`, in tokens, in batches of at most `size`, shortest first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        longest = lengths[place]
        if batch and (len(batch) >= room(size, longest) or longest > spread * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def filled(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """The same in batches of `size`, however unlike or long."""
    places = sorted(range(len(lengths)), key=lambda place: lengths[place])
    return (places[start : start + size] for start in range(0, len(places), size))
