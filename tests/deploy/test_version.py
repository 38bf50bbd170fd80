"""The order of versions: Semantic Versioning's own example, and packaging's of Python's."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmdeploy.deploy.version import older
from packaging.version import Version

ORDERED = [
    ("1.0.0", "1.0.1"),
    ("1.9", "1.10"),
    ("0.9+build9", "1"),
    ("1.1.0rc1", "1.1.0"),
    ("1.1.0-rc1", "1.1.0"),
    ("1.1.0-rc.9", "1.1.0-rc.10"),
    ("1.1.0", "1.1.0.post1"),
    ("v1.2", "v1.10"),
    ("9" * 4999, "9" * 5000),
    *pairwise(
        f"1.0.0{tail}"
        for tail in (
            *("-alpha", "-alpha.1", "-alpha.beta", "-beta", "-beta.2", "-beta.11", "-rc.1"),
            "",
        )
    ),
]


@pytest.mark.parametrize(("one", "other"), ORDERED)
def test_the_order_of_versions(one: str, other: str) -> None:
    assert older(one, other)
    assert not older(other, one)
    assert not older(one, one)


def test_equal_versions_are_not_older() -> None:
    for one, other in (("1.0", "1.0.0"), ("1.0.0+a", "1.0.0+b"), ("1.1.0rc1", "1.1.0-rc.1")):
        assert not older(one, other)
        assert not older(other, one)


NUMBERS = st.sampled_from([0, 1, 2, 10])
PYTHONS = st.builds(
    lambda release, *tails: ".".join(map(str, release)) + "".join(tails),
    st.lists(NUMBERS, min_size=1, max_size=4),
    st.just("") | st.builds("{}{}".format, st.sampled_from(["a", "b", "rc"]), NUMBERS),
    st.just("") | st.builds(".post{}".format, NUMBERS),
    st.just("") | st.builds(".dev{}".format, NUMBERS),
)


@settings(deadline=None)
@given(one=PYTHONS, other=PYTHONS)
def test_python_s_versions_are_in_packaging_s_order(one: str, other: str) -> None:
    assert older(one, other) == (Version(one) < Version(other))
