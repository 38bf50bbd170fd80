from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmdeploy.deploy.lengths import SPREAD, USUAL, alike, filled, room

LENGTHS = st.lists(st.integers(1, 20_000), max_size=60)


@pytest.mark.parametrize("way", [alike, filled])
@given(lengths=LENGTHS, size=st.integers(1, 20))
def test_each_place_comes_once(
    way: Callable[[Sequence[int], int], Iterator[list[int]]], lengths: list[int], size: int
) -> None:
    batches = list(way(lengths, size))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)


@given(lengths=LENGTHS, size=st.integers(1, 20))
def test_a_batch_is_of_like_lengths_and_has_no_more_scores_than_usual(
    lengths: list[int], size: int
) -> None:
    for batch in alike(lengths, size):
        found = [lengths[place] for place in batch]
        assert max(found) <= SPREAD * min(found)
        assert len(batch) == 1 or len(batch) * max(found) ** 2 <= size * USUAL**2


def test_batches_are_as_large_as_they_may_be() -> None:
    assert [len(batch) for batch in alike([512] * 40, 16)] == [16, 16, 8]
    assert [len(batch) for batch in alike([1024] * 10, 16)] == [4, 4, 2]
    assert [len(batch) for batch in alike([8192] * 3, 16)] == [1, 1, 1]
    assert [len(batch) for batch in filled([1, 9, 5, 3], 3)] == [3, 1]
    assert [room(16, length) for length in (0, 512, 513, 2048, 9999)] == [16, 16, 15, 1, 1]
