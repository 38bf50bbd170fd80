"""Samples that judge what was fitted are never fitted to, as long as there are two."""

from hypothesis import given
from hypothesis import strategies as st
from llmdeploy.toolchain.feeds.holding_out import hold_out


@given(count=st.integers(2, 300), batch=st.integers(1, 40))
def test_every_sample_is_on_one_side_and_both_have_some(count: int, batch: int) -> None:
    fit, held_out = hold_out(range(count), batch)
    assert sorted([*fit, *held_out]) == list(range(count))
    assert fit
    assert 1 <= len(held_out) <= max(1, count // 8 + batch)


def test_many_batches_give_every_eighth_and_few_every_eighth_sample() -> None:
    assert hold_out(range(32), 2)[1] == [14, 15, 30, 31]
    assert hold_out(list("abcdefghi"), 4)[1] == ["h"]
    assert hold_out("abc", 4) == (["a", "b"], ["c"])


def test_a_single_sample_does_both_and_none_gives_none() -> None:
    assert hold_out("a", 4) == (["a"], ["a"])
    assert hold_out("", 4) == ([], [])
