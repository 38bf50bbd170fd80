from collections.abc import Iterator
from dataclasses import astuple

import numpy as np
import pytest
from llmdeploy import ParityError
from llmdeploy.deploy import pieces
from llmdeploy.deploy.parity import Outputs, Parity, Tolerance, compare
from llmdeploy.deploy.statistics import OutputStats

from .graphs import normal

LOOSE = Tolerance(max_relative_error=1.0, min_cosine=-1.0)


def outputs(seed: int = 0, count: int = 2) -> list[Outputs]:
    return [{"y": normal(3, 5, seed=seed + index)} for index in range(count)]


def check(
    reference: list[Outputs], candidate: list[Outputs], tolerance: Tolerance = LOOSE
) -> Parity:
    return compare("int8", "float", reference, candidate, tolerance)


def test_equal_outputs_are_equal() -> None:
    parity = check(outputs(), outputs(), Tolerance(max_relative_error=0.0))
    assert parity.ok
    assert parity.samples == 6
    (stats,) = parity.outputs
    assert (stats.max_abs, stats.max_rel, stats.snr_db) == (0.0, 0.0, None)
    assert stats.cosine_mean == pytest.approx(1.0, abs=1e-12)


def test_figures_are_those_of_the_definitions() -> None:
    before, noise = outputs(), outputs(seed=9)
    after = [
        {"y": (a["y"] + 0.1 * b["y"]).astype(np.float32)}
        for a, b in zip(before, noise, strict=True)
    ]
    (stats,) = check(before, after).outputs
    x, y = (
        np.concatenate([each["y"] for each in side]).astype(np.float64) for side in (before, after)
    )
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    noise_db = 10 * np.log10((x**2).sum(1) / ((x - y) ** 2).sum(1))
    assert stats.max_abs == pytest.approx(np.abs(x - y).max(), rel=1e-9)
    assert stats.max_rel == pytest.approx(np.abs(x - y).max() / np.abs(x).max(), rel=1e-9)
    assert stats.mean_abs == pytest.approx(np.abs(x - y).mean(), rel=1e-9)
    assert stats.cosine_mean == pytest.approx(cosines.mean(), rel=1e-9)
    assert stats.cosine_min == pytest.approx(cosines.min(), rel=1e-9)
    assert stats.snr_db == pytest.approx(noise_db.min(), rel=1e-9)


def figures(stats: OutputStats) -> list[float]:
    return [np.inf if each is None else each for each in astuple(stats)[2:]]


@pytest.mark.parametrize("zeros", [(), (0,), (1,), (0, 1)])
def test_what_is_measured_in_pieces_is_measured_as_a_whole(
    zeros: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = [[{"y": normal(3, 7, 11, seed=seed), "z": normal(3, 5)}] for seed in (0, 1)]
    sides[1][0]["y"] = sides[0][0]["y"] + np.float32(0.1) * sides[1][0]["y"]
    for side in zeros:  # a sample of nothing, and pieces of nothing
        sides[side][0]["y"][0] = 0
        sides[side][0]["y"][1, 2:] = 0
    tolerance = Tolerance(max_relative_error=0.2, min_cosine=0.9)
    whole = check(sides[0], sides[1], tolerance)
    monkeypatch.setattr(pieces, "SIZE", 10)
    cut = check(sides[0], sides[1], tolerance)
    assert (cut.ok, cut.samples) == (whole.ok, 3)
    for one, other in zip(cut.outputs, whole.outputs, strict=True):
        assert (one.name, one.ok) == (other.name, other.ok)
        # Polygraphy takes means in float32
        assert figures(one) == pytest.approx(figures(other), rel=1e-6)


def test_results_are_taken_one_at_a_time_and_seen_as_they_come() -> None:
    seen = list[str]()

    def results() -> Iterator[Outputs]:
        for index, each in enumerate(outputs(count=3)):
            seen.append(f"made {index}")
            yield each

    def watch(one: Outputs, two: Outputs) -> None:
        seen.append(str(np.array_equal(one["y"], two["y"])))

    assert compare("a", "b", outputs(count=3), results(), LOOSE, watch=watch).ok
    assert seen == ["made 0", *["True"] * 3, "made 1", *["True"] * 3, "made 2", *["True"] * 3]


def test_a_shape_that_differs_later_counts_before_a_nan() -> None:
    nan, wide = np.full((1, 5), np.nan, np.float32), np.ones((1, 6), np.float32)
    after: list[Outputs] = [{"y": nan}, {"y": wide}]
    before: list[Outputs] = [{"y": np.ones((1, 5), np.float32)}] * 2
    assert check(before, after).reason.startswith("output y of sample 1 is float32(1, 6)")
    assert "sample 0" in check(before, [{"y": nan}, {"y": nan}]).reason


def test_every_stated_limit_must_hold() -> None:
    before = outputs()
    after = [{"y": each["y"] * np.float32(1.5)} for each in before]
    assert check(before, after, Tolerance(min_cosine=0.999)).ok
    both = check(before, after, Tolerance(min_cosine=0.999, max_relative_error=0.1))
    assert not both.ok
    assert both.reason == "y: relative error 0.5 above 0.1"


def test_one_bad_element_among_many_fails() -> None:
    before = [{"y": np.ones((1, 100_000), np.float32)}]
    bad = np.ones((1, 100_000), np.float32)
    bad[0, 777] = 1.02
    assert not check(before, [{"y": bad}], Tolerance(max_relative_error=0.01)).ok


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ({}, "missing output y"),
        ({"y": np.ones((2, 3), np.float32), "z": np.ones(2)}, "extra output z"),
        ({"y": np.ones((2, 4), np.float32)}, "is float32(2, 4) and was float32(2, 3)"),
        ({"y": np.ones((2, 3), np.float64)}, "is float64(2, 3) and was float32(2, 3)"),
        ({"y": np.full((2, 3), np.nan, np.float32)}, "NaN or Inf in output y of the candidate"),
        ({"y": np.full((2, 3), np.inf, np.float32)}, "NaN or Inf in output y of the candidate"),
    ],
)
def test_what_polygraphy_forgives_fails(candidate: Outputs, reason: str) -> None:
    parity = check([{"y": np.ones((2, 3), np.float32)}], [candidate])
    assert not parity.ok
    assert reason in parity.reason


def test_nan_on_both_sides_is_no_parity() -> None:
    nan: list[Outputs] = [{"y": np.full((2, 3), np.nan, np.float32)}]
    assert "of the reference" in check(nan, nan).reason


def test_a_missing_result_fails() -> None:
    assert check(outputs(), outputs()[:1]).reason == "1 results for 2 samples"
    assert check(outputs(), outputs(count=4)).reason == "4 results for 2 samples"


def test_an_empty_output_beside_a_wrong_one_hides_nothing() -> None:
    empty = np.zeros((2, 0, 3), np.float32)
    before: list[Outputs] = [{"past": empty, "y": np.zeros((2, 3), np.float32)}]
    after: list[Outputs] = [{"past": empty, "y": np.ones((2, 3), np.float32)}]
    assert check(before, before, Tolerance(max_relative_error=0.0)).ok
    assert not check(before, after, Tolerance(max_relative_error=0.1)).ok


def test_padding_is_not_compared() -> None:
    before: list[Outputs] = [{"y": normal(2, 4, 3)}]
    after: list[Outputs] = [{"y": before[0]["y"].copy()}]
    after[0]["y"][0, 2:] = 9.0
    mask: list[Outputs] = [{"y": np.array([[1, 1, 0, 0], [1, 1, 1, 1]])}]
    exact = Tolerance(max_relative_error=0.0)
    assert not compare("a", "b", before, after, exact).ok
    assert compare("a", "b", before, after, exact, mask).ok


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.float16])
def test_other_dtypes_are_compared(dtype: type) -> None:
    ones: list[Outputs] = [{"y": np.ones((2, 3), dtype)}]
    zeros: list[Outputs] = [{"y": np.zeros((2, 3), dtype)}]
    assert check(ones, ones, Tolerance(max_relative_error=0.0)).ok
    assert not check(ones, zeros, Tolerance(max_relative_error=0.5)).ok


def test_a_tolerance_without_a_limit_is_refused() -> None:
    with pytest.raises(ParityError, match="no limit"):
        Tolerance()
    with pytest.raises(ParityError, match="no samples"):
        check([], [])
